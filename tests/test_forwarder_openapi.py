"""schemathesis sends what the OpenAPI document allows, and what it does not: no 5xx but the documented 503."""

import subprocess
import sys
from pathlib import Path

import pytest
from forwarder_stack import stack

pytestmark = [pytest.mark.component]


def test_no_server_error_but_the_documented_503(tmp_path: Path) -> None:
    with stack(tmp_path) as made:
        made.frontend()
        program = Path(sys.executable).with_name("schemathesis")
        argv = [str(program), "run", f"{made.url}/openapi.json", "--max-examples", "40", "--seed", "1"]
        argv += ["--checks", "status_code_conformance,content_type_conformance,response_schema_conformance"]
        argv += ["--continue-on-failure", "--no-color", "--generation-database", "none"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
        counts = [sample for sample in made.get("metrics").text.splitlines() if "http_requests_total{" in sample]
        answered = {line.split('status="')[1][:3] for line in counts}
        assert {code for code in answered if code >= "500"} <= {"503"}
        assert {"200", "404", "422"} <= answered, "the run has reached successes and refusals"
