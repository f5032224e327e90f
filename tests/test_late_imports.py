"""Modules of torch and timm wait until something needs them, and then are the real ones."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from thawlab import late_imports

# What is asked for, and which module is whole after it, that was not before.
AFTER = {
    "compiling": ("torch._dynamo", "assert torch.compile(lambda v: v + 1, backend='eager')(torch.ones(2)).tolist() == [2, 2]"),
    "a part of the compiler": (
        "torch._dynamo",
        "import torch._dynamo.eval_frame as part; assert part is torch._dynamo.eval_frame is sys.modules[part.__name__]; "
        "assert part.__spec__.name == part.__name__ and part.__spec__.loader.path == part.__file__",
    ),
    "a name of the compiler": ("torch._dynamo", "from torch._dynamo import explain; assert callable(explain)"),
    "the compiler's tools": (
        "torch._dynamo",
        "from torch._dynamo.utils import counters; assert torch._dynamo.utils.counters is counters",
    ),
    "what torchvision calls later": (
        "torchvision",
        "from torchvision.ops import roi_align; assert sys.modules['torchvision.ops.roi_align'].is_compile_supported('cpu')",
    ),
    "an export": (
        "torch.export",
        "program = torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),)); "
        "assert program.module()(torch.ones(1, 2)).shape == (1, 3)",
    ),
    "a part of the export": (
        "torch.export",
        "import torch.export.dynamic_shapes as part; assert part is torch.export.dynamic_shapes",
    ),
    "shapes": (
        "torch._meta_registrations",
        "from thawlab.late_imports import need_shapes; need_shapes(); "
        "assert torch.nn.Conv2d(3, 4, 3, device='meta')(torch.ones(1, 3, 8, 8, device='meta')).shape == (1, 4, 6, 6)",
    ),
    "transforms": (
        "torchvision",
        "from torchvision.transforms import v2; assert v2.functional.hflip(torch.arange(2.0)[None, None]).tolist() == [[[1, 0]]]",
    ),
    "a data set": ("torchvision", "import torchvision; assert torchvision.datasets.CIFAR10 and torchvision.__version__"),
    "detection": (
        "torchvision.ops",
        "from torchvision.ops import nms; assert nms(torch.tensor([[0, 0, 1, 1.0]]), torch.ones(1), 0.5).tolist() == [0]",
    ),
    "features by name": (
        "torchvision.models.feature_extraction",
        "from timm.layers import create_feature_extractor as create; "
        "found = create(torch.nn.Sequential(torch.nn.Linear(2, 3)), ['0'])(torch.ones(1, 2)); assert found['0'].shape == (1, 3)",
    ),
    "a list of networks": ("timm", "import timm; assert len(timm.list_models()) > 900 and timm.is_model('vit_base_patch16_224')"),
    "a name of timm.models": ("timm.models", "import timm.models; assert 'resnet50' in timm.models.list_models()"),
    "a network of timm's": (
        "timm",
        "import timm; assert timm.create_model('resnet18', num_classes=3).eval()(torch.ones(1, 3, 32, 32)).shape == (1, 3)",
    ),
    "timm's data": ("timm.data", "from timm.data import create_transform; assert create_transform(32)"),
}
TESTED = metadata.version("torch").startswith(late_imports._TESTED)  # with others, two more modules are imported as ever
QUICK = {"compiling", "shapes", "a list of networks"}  # each takes the seconds that are saved elsewhere


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("after", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in AFTER])
def test_modules_wait_and_then_are_the_real_ones(after: str) -> None:
    module, code = AFTER[after]
    told = ran(f"""
import sys
from thawlab.late_imports import put_off, waits
put_off()
import timm, timm.models.resnet, torch
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
torch.rand(2, generator=torch.Generator().manual_seed(3))
print([name for name in sys.modules if name.startswith("torch._dynamo.")], "sympy" in sys.modules and {TESTED})
print(timm.__version__, len([name for name in sys.modules if name.startswith("timm.models.") and "._" not in name]))
print(waits("{module}"))
{code}
print(waits("{module}"), type(sys.modules["{module}"]).__name__)
""")
    imported, (version, families), *rest = (told.splitlines()[0], told.splitlines()[1].split(), *told.splitlines()[2:])
    assert imported == "[] False"
    assert version == metadata.version("timm")
    assert int(families) == 1
    assert rest == [str(TESTED or not module.startswith("torch.") or module == "torch._dynamo"), "False module"]


def test_threads_that_ask_at_once_get_the_same_whole_module() -> None:
    assert (
        ran("""
from thawlab.late_imports import put_off
put_off()
from concurrent.futures import ThreadPoolExecutor
import torch, torchvision
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda _: torchvision.datasets.CIFAR10, range(8)))
print(len(set(found)))
""")
        == "1\n"
    )


def test_a_module_that_fails_waits_on() -> None:
    assert (
        ran("""
import sys
from thawlab.late_imports import put_off, waits
put_off()
import torch
import torchvision
class Broken:
    def find_spec(self, name, path, target=None):
        if name == "torchvision.io":
            raise ImportError("no disk")
sys.meta_path.insert(0, Broken())
for _ in range(2):
    try:
        torchvision.datasets
    except ImportError as error:
        print(error, waits("torchvision"))
""").splitlines()
        == ["no disk True"] * 2
    )


def test_what_is_imported_already_stays() -> None:
    told = ran("import torch._dynamo, sys; from thawlab.late_imports import put_off; put_off(); print(sys.meta_path)")
    assert "thawlab.late_imports" not in told


def test_an_import_of_the_library_puts_nothing_off() -> None:
    assert "thawlab.late_imports" not in ran("import sys, thawlab.api; print(sys.meta_path)")
