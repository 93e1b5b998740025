"""`make setup` with a stand-in for Python and pip."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Makes `.venv/bin/python`, which prints what pip prints.
PYTHON = """#!/bin/sh
if [ "$2" = venv ]; then
    mkdir -p .venv/bin
    cat > .venv/bin/python <<'END'
#!/bin/sh
case "$*" in *--quiet*) exit STATUS ;; esac
echo "Collecting numpy==2.3.0"
echo "  Downloading numpy-2.3.0-cp311.whl.metadata (62 kB)"
echo "  Downloading small-1.0-py3.whl (9.9 MB)"
echo "  Downloading tensorflow-2.21.0-cp311.whl (620.8 MB)"
echo "Installing collected packages: numpy, tensorflow, and a hundred more"
echo "WARNING: Location '/absent' is ignored" >&2
exit STATUS
END
    chmod +x .venv/bin/python
fi
"""


@pytest.mark.parametrize("status", [0, 1])
def test_setup_shows_the_large_packages_and_keeps_errors(status, tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON.replace("STATUS", str(status)))
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", "setup"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) == (status == 0)
    assert (tmp_path / ".venv/.ready").exists() == (status == 0)
    lines = done.stdout.splitlines()
    assert "Downloading tensorflow-2.21.0-cp311.whl (620.8 MB)" in lines
    assert "Installing collected packages" in lines
    assert not any("small" in line or "metadata" in line for line in lines)
    assert "Location '/absent' is ignored" in done.stderr
