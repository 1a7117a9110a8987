"""Running the nybble command line on arrays."""
import json
import pathlib
import subprocess
import tempfile

import numpy as np


class Nybble:
    def __init__(self, program, threads=0):
        self.program, self.threads = str(program), threads

    def call(self, *args):
        r = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True)
        if r.returncode:
            raise RuntimeError(r.stderr.strip())
        return r.stdout

    def run(self, model, inputs):
        with tempfile.TemporaryDirectory() as d:
            args = []
            for name, x in inputs.items():
                path = pathlib.Path(d) / f"{len(args)}.npy"
                np.save(path, np.ascontiguousarray(x))
                args += ["--input", f"{name}={path}"]
            self.call("run", model, *args, "--threads", self.threads, "--output-dir", f"{d}/out", "--max-memory", 4096)
            return {p.stem: np.load(p) for p in (pathlib.Path(d) / "out").glob("*.npy")}

    def quantize(self, model, out, **options):
        args = [a for k, v in options.items() for a in ([f"--{k.replace('_', '-')}"] + ([] if v is True else [v])) if v is not None and v is not False]
        return json.loads(self.call("quantize", model, "-o", out, "--json", "--threads", self.threads, *args))
