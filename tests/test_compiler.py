"""torch's compiler waits until something needs it, and then is the real one."""

from __future__ import annotations

import subprocess
import sys

import pytest

AFTER = {
    "compiling": "assert torch.compile(lambda v: v + 1, backend='eager')(torch.ones(2)).tolist() == [2, 2]",
    "a part of it": "import torch._dynamo.eval_frame as part; assert part is torch._dynamo.eval_frame",
    "a name of it": "from torch._dynamo import explain; assert callable(explain)",
    "its tools": "from torch._dynamo.utils import counters; assert torch._dynamo.utils.counters is counters",
    "what torchvision calls later": "from torchvision.ops import roi_align as r; import sys; "
    "assert sys.modules['torchvision.ops.roi_align'].is_compile_supported('cpu') in {True, False}",
    "an export": "torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))",
}


def ran(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# Each takes the seconds that are saved elsewhere.
@pytest.mark.parametrize("after", [pytest.param(name, marks=[] if name == "compiling" else pytest.mark.slow) for name in AFTER])
def test_the_compiler_waits_and_then_is_the_real_one(after: str) -> None:
    told = ran(f"""
import sys
from thawlab.compiler import put_off
put_off()
import timm, torch
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
print([name for name in sys.modules if name.startswith("torch._dynamo.")], "sympy" in sys.modules)
{AFTER[after]}
print("torch._dynamo.eval_frame" in sys.modules, type(sys.modules["torch._dynamo"]).__name__)
""")
    assert told.splitlines() == ["['torch._dynamo.utils'] False", "True module"]


def test_what_is_imported_already_stays() -> None:
    told = ran("import torch._dynamo, sys; from thawlab.compiler import put_off; put_off(); print(sys.meta_path)")
    assert "thawlab.compiler" not in told


def test_an_import_of_the_library_puts_nothing_off() -> None:
    assert "thawlab.compiler" not in ran("import sys, thawlab.api; print(sys.meta_path)")
