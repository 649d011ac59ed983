"""The code that docs/serving.md prints for Ray Serve, run as it stands there."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import topgb
from combining.small_models import model_file

PAGE = Path(__file__).resolve().parents[2] / "docs/serving.md"
# Asks as many times as both replicas get something to do, and prints what came.
ASKING = """
import json, urllib.error, urllib.request
import ray
ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False)
{snippet}
serve.start(http_options={{"host": "127.0.0.1", "port": {port}}})
serve.run(tagger, name="tags", route_prefix="/")
def ask(path, body=None, token="SECRET"):
    headers = {{"Host": "tags.example.org", "Authorization": "Bearer " + token, "Content-Type": "application/json"}}
    request = urllib.request.Request("http://127.0.0.1:{port}" + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
frames = json.dumps({{"features": [[7] * 40] * 5, "encoding": "bytes", "top": 2}}).encode()
found = [ask("/healthz"), ask("/v1/models", token="wrong"), *(ask("/v1/predict", frames) for _ in range(8))]
serve.shutdown()
print(json.dumps(found))
"""


@pytest.fixture
def printed() -> str:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "import serve" in block)
    return code


def test_ray_serve_runs_the_same_application(printed, tmp_path):
    try:
        import ray.serve  # noqa: F401
    except ImportError as error:
        pytest.skip(f"Ray Serve does not import here ({error}); pip install 'ray[serve]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model_file(tmp_path / "model.safetensors")
    assert "num_replicas=4" in printed
    code = ASKING.format(snippet=printed.replace("num_replicas=4", "num_replicas=2"), port=port)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    health, refused, *answers = json.loads(done.stdout.splitlines()[-1])
    assert (health[0], refused[0]) == (200, 401)
    video = np.full((5, 40), 7, np.uint8)
    expected = topgb.load(tmp_path / "model.safetensors").tag(video, top=2)
    for status, body in answers:
        assert status == 200
        tags = json.loads(body)["predictions"][0]
        assert [tag["name"] for tag in tags] == [name for name, _ in expected]
        assert [tag["probability"] for tag in tags] == pytest.approx([value for _, value in expected], abs=1e-5)
