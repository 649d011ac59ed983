"""Requests a second of `topgb serve` against its batching window, beside ONNX Runtime behind the same handler.

    .venv/bin/python benchmarks/serving_http.py [--seconds 3] [--windows 0,2,5,10] [--only "float32;int8"]

NetVLAD with 64 clusters (32 of the audio) and 512 hidden units, MoE of two mixtures, 3,862 classes, its weights random.
Bodies are `.npy` files of bytes, one video of 300 frames each, 345 kB. One client asks one after another; 64 clients
each ask again when they are answered, and `times one` says how many times as many videos a second they get at the
same window. Server and clients are processes of their own on the same machine, connected by loopback. ONNX Runtime
runs the file that `topgb model export` makes, with two threads as PyTorch. Both servers of an encoding are open at
once and take turns; before anything is timed, their answers are compared with those of `topgb.load(…).predict`.
"""

import argparse
import io
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from inference import ENCODINGS, written

from serving import machine, serve, start

CLIENTS = 64
THREADS = 2
VIDEOS = 32
FRAMES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure")
    parser.add_argument("--windows", default="0,2,5,10", help="milliseconds, separated by commas")
    parser.add_argument("--only", default="", help="encodings, separated by semicolons")
    parser.add_argument("--serve", nargs=2, metavar=("WAY", "FILE"), help="used by this script")
    parser.add_argument("--ask", nargs=3, metavar=("URL", "CLIENTS", "SECONDS"), help="used by this script")
    options = parser.parse_args()
    if options.serve:
        serve_http(options.serve[0], Path(options.serve[1]))
        return
    if options.ask:
        url, clients, seconds = options.ask
        print(json.dumps(asked(url, int(clients), float(seconds))))
        return
    import onnxruntime
    import torch

    windows = [float(part) for part in options.windows.split(",")]
    chosen = [name.strip() for name in options.only.split(";") if name.strip()] or list(ENCODINGS)
    print(f"{machine()}, torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}\n")
    print("| encoding | runs in | window ms | clients | videos/s | times one | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for encoding in chosen:
            files = written("netvlad", encoding, Path(folder))
            for row in rows(files, ENCODINGS[encoding], windows, options.seconds):
                print(f"| {encoding} | {' | '.join(row)} |", flush=True)


def rows(files: dict[str, Path], tolerance: float, windows: list[float], seconds: float) -> list[list[str]]:
    """The cells behind the encoding: for each way one client, then 64 with each window."""
    servers = {
        way: start(sys.executable, Path(__file__), ["--serve", way, str(path)], threads=THREADS)
        for way, path in files.items()
    }
    for server in servers.values():
        check(server.hello["url"], files["topgb"], tolerance)
    found: dict[str, list[list[str]]] = {way: [] for way in servers}
    for window in windows:
        for way, server in servers.items():
            server.ask(f"{window / 1000}")
            alone = 0.0
            for clients in (1, CLIENTS):
                times = measured(server.hello["url"], clients, seconds)
                if not times:
                    sys.exit(
                        f"{way} answered nothing within {seconds:g} seconds; the machine is too busy to measure on"
                    )
                speed = len(times) / seconds
                alone = alone or speed
                middle, worst = statistics.median(times), sorted(times)[int(0.99 * len(times))]
                cells = [way, f"{window:g}", str(clients), f"{speed:,.0f}", f"{speed / alone:.1f}"]
                found[way].append([*cells, f"{1000 * middle:,.1f}", f"{1000 * worst:,.1f}"])
    for server in servers.values():
        server.stop()
    return [row for way in servers for row in found[way]]


def serve_http(way: str, path: Path) -> None:
    """A server in this process, whose window each line of the standard input sets, in seconds."""
    from topgb.api.serving import open_served
    from topgb.matmul_library import choose, use
    from topgb.serving.served import ServedModel
    from topgb.serving.server import listen, run, url_of
    from topgb.serving.service import Service
    from topgb.serving.settings import Settings

    use(choose().path)
    opened = open_served([path.with_suffix(".safetensors")], "cpu")
    if way == "onnx":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(path, settings)
        names = [entry.name for entry in session.get_inputs()]

        def predict(features: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
            return session.run(None, dict(zip(names, (features, num_frames.astype(np.int64)), strict=True)))[0]

        opened = [ServedModel(model.name, model.header, model.bytes, predict) for model in opened]
    service = Service(opened, Settings())
    listening = listen("127.0.0.1", 0)
    ready = threading.Event()
    threading.Thread(target=run, args=(service, listening, lambda server: ready.set()), daemon=True).start()
    ready.wait()

    def set_window(line: str) -> dict:
        service.batcher.window = float(line)
        return {}

    serve({"url": url_of(listening)}, set_window)


def measured(url: str, clients: int, seconds: float) -> list[float]:
    """Seconds of each request of a process of clients."""
    command = [sys.executable, __file__, "--ask", url, str(clients), str(seconds)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def asked(url: str, clients: int, seconds: float) -> list[float]:
    """Ask with so many clients for so long, and give the seconds of each answer, but for the first half second.

    Each client is a thread on a socket, which takes less of the cores it shares with the server than asyncio would.
    """
    where = urlsplit(url)
    requests = [request_bytes(body) for body in bodies()]
    times: list[float] = []
    begin = time.perf_counter() + 0.5
    end = begin + seconds

    def client(number: int) -> None:
        request = requests[number % len(requests)]
        with socket.create_connection((where.hostname, where.port)) as connection:
            while (asked := time.perf_counter()) < end:
                connection.sendall(request)
                answer_of(connection)
                now = time.perf_counter()
                if asked >= begin and now <= end:
                    times.append(now - asked)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def answer_of(connection: socket.socket) -> bytes:
    """The body of an answer, which must be a good one."""
    found = connection.recv(1 << 16)
    while b"\r\n\r\n" not in found:
        found += connection.recv(1 << 16)
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), found
    lines = head.split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(1 << 16)
    return body


def videos() -> np.ndarray:
    """Stored features uint8 [VIDEOS, FRAMES, D]."""
    return np.random.default_rng(0).integers(0, 256, (VIDEOS, FRAMES, 1152), dtype=np.uint8)


def bodies() -> list[bytes]:
    """An `.npy` file for each video."""
    found = []
    for video in videos():
        file = io.BytesIO()
        np.save(file, video)
        found.append(file.getvalue())
    return found


def request_bytes(body: bytes) -> bytes:
    """A whole request."""
    head = (
        "POST /v1/predict?top=20 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def check(url: str, path: Path, tolerance: float) -> None:
    """The answers are those of `topgb.load(path).predict`."""
    import topgb

    model = topgb.load(path)
    where = urlsplit(url)
    for video, body in list(zip(videos(), bodies(), strict=True))[:4]:
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall(request_bytes(body))
            tags = json.loads(answer_of(connection))["predictions"][0]
        wanted = model.predict(video)[[tag["class"] for tag in tags]]
        np.testing.assert_allclose([tag["probability"] for tag in tags], wanted, rtol=0, atol=tolerance)


if __name__ == "__main__":
    main()
