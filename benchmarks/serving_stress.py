"""Ten thousand requests of clients of all manners, at once: nothing may be lost or mixed up.

    .venv/bin/python benchmarks/serving_stress.py [--requests 10000] [--clients 64] [--seed 0]

Starts `topgb serve` with two small models of random weights in a process of its own. Most clients send features of
their own, as `.npy`, as JSON or as a file, and each answer is compared with what `topgb.load(…).predict` says of that
client's own input: within 1e-5, since batches of other sizes are rounded otherwise. The others hang up before the
answer, or send half a body, half a head, garbage, values that do not fit, or the name of no model. A client that is
asked to come again later does. At the end the server must be well, hold no temporary file, and end with 0 at SIGTERM.
Prints what was done, and the server's resident memory after a tenth of the requests and after all.
"""

import argparse
import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from serving import machine

TOLERANCE = 1e-5
CLASSES = 12
# Shares of the manners, in percent.
GOOD = {"npy": 30, "json": 15, "floats": 10, "file": 10}
RUDE = {"hangs up": 8, "half a body": 7, "half a head": 5, "garbage": 5, "wrong values": 5, "no such model": 5}
PATIENCE = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64, help="at once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "temporary")
        place.mkdir()
        models = [write_model(Path(folder, f"{name}.safetensors"), seed) for seed, name in enumerate(("one", "two"))]
        process, port = start(models, place)
        began = time.perf_counter()
        stress = Stress(models, port, process.pid, options.seed)
        asyncio.run(stress.run(options.requests, options.clients))
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE)
        left = list(place.iterdir())
    print(f"{machine()}\n\n| manner | requests | as it should be |\n|---|---|---|")
    for manner, count in sorted(stress.done.items()):
        print(f"| {manner} | {count:,} | {stress.right[manner]:,} |")
    total = sum(stress.right.values())
    print(f"\n{total:,} of {options.requests:,} as they should be, in {seconds:.0f} s")
    print(f"exit code {code}; {len(left)} files left; {stress.again:,} times asked to come again")
    print(f"resident: {stress.memory[0]:.0f} MB after a tenth, {stress.memory[1]:.0f} MB after all")
    for line in stress.wrong[:10]:
        print(line)
    sys.exit(total != options.requests or code != 0 or bool(left))


def write_model(path: Path, seed: int) -> Path:
    import torch

    from topgb.features import Feature, FeatureSpec
    from topgb.modelfile import Header, Member, write_model_file
    from topgb.modelfile.member import encode_member
    from topgb.models import build_tagger, parse_model

    spec = FeatureSpec("frame", (Feature("rgb", 32), Feature("audio", 8)))
    section = {"aggregator": "netvlad", "clusters": {"rgb": 4, "audio": 2}, "hidden": 16, "head": "moe"}
    torch.manual_seed(seed)
    config = parse_model(section)
    entries, tensors = encode_member(0, build_tagger(spec, CLASSES, config).state_dict())
    # Weights as they are drawn give nearly the same probabilities to all videos.
    tensors = {name: tensor * 4 if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    write_model_file(path, Header(spec, CLASSES, (Member(1.0, config),), entries), tensors)
    return path


def start(models: list[Path], place: Path) -> tuple[subprocess.Popen, int]:
    """The server's process, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "topgb", "serve", *map(str, models), "--port", "0"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)},
    )  # fmt: skip
    assert process.stdout is not None
    return process, int(re.fullmatch(r"listening at http://127.0.0.1:(\d+)\n", process.stdout.readline())[1])


class Stress:
    """Clients, and what became of them."""

    def __init__(self, models: list[Path], port: int, server: int, seed: int):
        import topgb

        self._models = {path.stem: topgb.load(path) for path in models}
        self._port, self._server, self._seed = port, server, seed
        self.done: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[float] = []
        self.again = 0

    async def run(self, requests: int, clients: int) -> None:
        numbers = iter(range(requests))

        async def client() -> None:
            for number in numbers:
                await self._one(number)
                if number == requests // 10:
                    self.memory.append(resident(self._server))

        await asyncio.gather(*(client() for _ in range(clients)))
        reply = await self._ask(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert reply.endswith(b'{"status":"ok"}'), reply
        self.memory.append(resident(self._server))

    async def _one(self, number: int) -> None:
        generator = np.random.default_rng((self._seed, number))
        shares = GOOD | RUDE
        manner = generator.choice(list(shares), p=np.array(list(shares.values())) / 100)
        name = str(generator.choice(list(self._models)))
        video = generator.integers(0, 256, (generator.integers(1, 40), 40), dtype=np.uint8)
        self.done[manner] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                fine = await (self._good(manner, name, video) if manner in GOOD else self._rude(manner, name, video))
        except (OSError, TimeoutError, ValueError, KeyError) as error:
            fine, self.wrong = False, [*self.wrong, f"{number} {manner}: {error!r}"]
        self.right[manner] += fine

    async def _good(self, manner: str, name: str, video: np.ndarray) -> bool:
        given: np.ndarray = video
        if manner == "floats":
            given = (video / 64.0 - 2.0).astype(np.float32)
        if manner == "json":
            value = {"model": name, "features": video.tolist(), "encoding": "bytes", "top": None}
            request = post("/v1/predict", "application/json", json.dumps(value).encode())
        elif manner == "file":
            body = form({"model": name, "top": "all"}, npy(video))
            request = post("/v1/tag", "multipart/form-data; boundary=edge", body)
        else:
            request = post(f"/v1/predict?top=all&model={name}", "application/octet-stream", npy(given))
        while (reply := await self._ask(request)).startswith(b"HTTP/1.1 429 "):
            self.again += 1
            await asyncio.sleep(1)
        head, _, body = reply.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"{head[:40]!r} {body[:200]!r}")
        answer = json.loads(body)
        tags = answer["videos"][0]["tags"] if manner == "file" else answer["predictions"][0]
        found = {tag["class"]: tag["probability"] for tag in tags}
        wanted = self._models[name].predict(given)
        if not np.allclose([found[place] for place in range(CLASSES)], wanted, rtol=0, atol=TOLERANCE):
            raise ValueError("another video's answer, or a wrong one")
        return answer["model"] == name

    async def _rude(self, manner: str, name: str, video: np.ndarray) -> bool:
        request = post(f"/v1/predict?model={name}", "application/octet-stream", npy(video))
        if manner == "wrong values":
            request = post("/v1/predict", "application/octet-stream", npy(video[:, :-1]))
            return (await self._ask(request)).startswith(b"HTTP/1.1 422 ")
        if manner == "no such model":
            request = post("/v1/predict?model=none", "application/octet-stream", npy(video))
            return (await self._ask(request)).startswith(b"HTTP/1.1 404 ")
        if manner == "garbage":
            noise = np.random.default_rng(len(video)).bytes(500) + b"\r\n\r\n"
            return (await self._ask(noise)).startswith(b"HTTP/1.1 400 ")
        cut = {"hangs up": len(request), "half a body": len(request) - 20, "half a head": 40}[manner]
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request[:cut])
        await writer.drain()
        writer.close()
        return True

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            return head + await reader.readexactly(int(length[1]) if length else 0)
        finally:
            writer.close()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def post(path: str, kind: str, body: bytes) -> bytes:
    """A request, after which the connection is closed."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def form(fields: dict[str, str], content: bytes) -> bytes:
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'name="file"; filename="x.npy"\r\n\r\n' + content)
    return b"".join(b"--edge\r\ncontent-disposition: form-data; " + p + b"\r\n" for p in parts) + b"--edge--\r\n"


def resident(process: int) -> float:
    """Resident memory in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
