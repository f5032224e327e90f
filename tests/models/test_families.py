"""timm's networks are the same whether its families wait or not; timm as a whole is the oracle."""

from __future__ import annotations

import json
import subprocess
import sys

import timm

from thawlab.models.families import is_architecture, pretrained_config, pretrained_names

NAMES = ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_035", "vit_tiny_patch16_224", "convnext_atto", "beit_base_patch16_224"]
OLD = "tv_resnet50"  # deprecated: no function of that name is registered
NONE = ["resnet", "resnet18 ", "resnet18.a1_in1k", "os", "..", "", "features", "BasicBlock", "hf-hub:timm/resnet18", "é"]


def alone(code: str) -> str:
    """Run code in a process whose families wait, and return what it prints."""
    program = f"from thawlab.late_imports import put_off, waits\nput_off()\nfrom thawlab.models.families import *\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whole_timm_is_asked_where_it_is_there() -> None:
    for name in NAMES:
        assert is_architecture(name)
        assert pretrained_names(name) == sorted(timm.list_pretrained(f"{name}.*"))
        assert pretrained_config(name) == timm.get_pretrained_cfg(name)
    assert is_architecture(OLD) == timm.is_model(OLD)
    for name in NONE:
        assert is_architecture(name) == timm.is_model(name)
    assert pretrained_names("nowhere") == []
    assert pretrained_config("resnet18.nowhere") is None
    assert pretrained_config("nowhere") is None


def test_one_family_gives_what_whole_timm_gives() -> None:
    told = json.loads(
        alone(f"""
import json
found = {{}}
for name in {NAMES!r}:
    network = create(name, num_classes=0)
    found[name] = [
        sum(part.numel() for part in network.parameters()),
        pretrained_names(name),
        pretrained_config(name).to_dict(),
        waits("timm.models"),
    ]
print(json.dumps(found))
""")
    )
    for name in NAMES:
        parameters, tags, config, still = told[name]
        assert parameters == sum(part.numel() for part in timm.create_model(name, num_classes=0).parameters())
        assert tags == sorted(timm.list_pretrained(f"{name}.*"))
        assert config == json.loads(json.dumps(timm.get_pretrained_cfg(name).to_dict()))
        assert still, name


def test_names_that_no_family_registers_are_answered_by_the_whole() -> None:
    found = alone(f"print([is_architecture(name) for name in {[OLD, *NONE]!r}], waits('timm.models'))")
    assert found.strip() == f"{[timm.is_model(name) for name in [OLD, *NONE]]} False"


def test_every_network_of_timm_is_found_in_a_family_or_by_the_whole() -> None:
    from thawlab.models.families import _family

    names = timm.list_models()[::40]
    assert all(timm.models._registry._model_to_module[name] == _family(name) for name in names)
