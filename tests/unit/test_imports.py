"""The query side works without a model library."""

import subprocess
import sys

BLOCKED = ("torch", "transformers", "sentence_transformers", "onnxruntime", "celery", "models", "indexer")

PROGRAM = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import onnxruntime
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the control failed: onnxruntime was importable")
from query_api.app import create_app
from services.settings import Settings

create_app(Settings(encoder="standin"))
loaded = [name for name in {BLOCKED!r} if name in sys.modules]
raise SystemExit(f"loaded: {{loaded}}" if loaded else 0)
"""


def test_the_query_side_needs_no_model_library_and_no_celery() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


COMMAND_LINE = """
import sys
import cli.main

heavy = ("aiohttp", "fastapi", "httpx", "lxml", "numpy", "opensearchpy", "pyarrow", "pydantic", "redis", "rich")
absent = ("models", "indexer")  # from the image of the API
loaded = [name for name in heavy + absent if name in sys.modules]
raise SystemExit(f"loaded: {loaded}" if loaded else 0)
"""


def test_the_command_line_loads_what_a_command_needs_when_it_runs() -> None:
    """Each second of imports delays each command and each start of a worker."""
    done = subprocess.run([sys.executable, "-c", COMMAND_LINE], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


LOAD = """
import sys
from cli.main import main

sys.argv = ["sparsewell", "load", "absent.jsonl", "--index", "notes"]
try:
    main()
finally:
    heavy = ("aiohttp", "fastapi", "kombu", "numpy", "opensearchpy", "pyarrow", "redis")
    print([name for name in heavy if name in sys.modules])
"""


def test_a_load_through_the_api_loads_no_library_of_the_server() -> None:
    """A load starts after .75 s of processor time; with the server's libraries it took 1.9 s."""
    done = subprocess.run([sys.executable, "-c", LOAD], check=False, capture_output=True, text=True, timeout=60)
    assert "[unreadable_file]" in done.stderr
    assert done.stdout == "[]\n"
