"""`thawlab studio` as a process, asked over HTTP."""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from asking import Answered, Server, picture
from PIL import Image

import thawlab
from thawlab.evaluation.predictions import load_predictions

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def names(studio_folder: Path) -> dict[str, str]:
    return {folder.name.rpartition("-")[0]: folder.name for folder in (studio_folder / "runs").iterdir()}


def decide(server: Server, name: str, body: Any, headers: dict[str, str] = JSON) -> Answered:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.ask("POST", f"/api/runs/{name}/corrections", content, headers)


def rows_of(file: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))[1:]


def test_the_table_and_what_changed_since(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    first = studio.ask("GET", "/api/runs").json
    assert [row["name"] for row in first["rows"]] == sorted(names.values())
    assert {row["status"] for row in first["rows"]} == {"finished"}
    assert studio.ask("GET", f"/api/runs?since={first['version']}").json["rows"] == []
    (studio_folder / "runs" / names["plain"] / "results.json").write_text("{")
    changed = studio.ask("GET", f"/api/runs?since={first['version']}").json
    assert [(row["name"], row["status"]) for row in changed["rows"]] == [(names["plain"], "damaged")]


def test_a_large_table_is_packed_for_those_who_say_so(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    import gzip
    import shutil

    for number in range(20):
        shutil.copytree(studio_folder / "runs" / names["plain"], studio_folder / "runs" / f"more-{number:012d}")
    plain, packed = (studio.ask("GET", "/api/runs", headers=headers) for headers in ({}, {"Accept-Encoding": "gzip, br"}))
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body))["rows"] == plain.json["rows"]
    assert len(packed.body) < len(plain.body) / 5


@pytest.mark.parametrize(
    "name", ["nope", "..", ".", "%2e%2e", "..%2Fphotos", "%00", "plain-", "a" * 5000, "%ff", "photos", "/etc/passwd"]
)
@pytest.mark.parametrize("path", ["/api/runs/{}/metrics", "/runs/{}/report", "/api/runs/{}/samples", "/api/runs/{}/events"])
def test_a_name_that_is_not_listed_is_not_found(studio_of_all: Server, name: str, path: str) -> None:
    assert studio_of_all.ask("GET", path.format(name)).status == 404


@pytest.fixture(scope="module")
def studio_of_all(trained_on_noise: Path, start: Callable[..., Server]) -> Server:
    """A studio that only reads."""
    return start("--runs", str(trained_on_noise / "runs"), verb="studio", models=())


def test_epochs_samples_and_predictions_of_a_run(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    name = names["plain"]
    rows = [json.loads(line) for line in (studio_folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    assert studio.ask("GET", f"/api/runs/{name}/metrics").json == {"rows": rows, "problem": ""}
    samples = studio.ask("GET", f"/api/runs/{name}/samples").json["samples"]
    assert {sample["label"] for sample in samples} == {"ant", "bee", "cat"}
    assert all(sample["url"].startswith("data:image/png;base64,") for sample in samples)
    content = picture(1)
    answer = studio.ask("POST", f"/v1/predict?model={name}", content, {"Content-Type": "image/png"}).json["pictures"][0]
    file = studio_folder / "one.png"
    file.write_bytes(content)
    expected = thawlab.load(name, studio_folder / "runs").predict_many([file], top_k=5)[0].as_json()
    assert answer["answers"][0]["predictions"] == expected["predictions"]
    assert studio.ask("POST", "/v1/predict", content, {"Content-Type": "image/png"}).status == 422
    assert studio.ask("POST", "/v1/predict?model=nope", content, {"Content-Type": "image/png"}).status == 404


def test_more_models_are_asked_than_stay_open(studio_of_all: Server, trained_on_noise: Path) -> None:
    for _ in range(2):
        for folder in sorted((trained_on_noise / "runs").iterdir()):
            assert studio_of_all.predict([picture(2)], f"?model={folder.name}").status == 200


@pytest.mark.parametrize("slash", ["/", "%2F"])
def test_a_run_of_a_study_has_all_that_others_have(
    slash: str, studio: Server, studio_folder: Path, names: dict[str, str]
) -> None:
    study = studio_folder / "runs" / "rates"
    study.mkdir()
    (study / "study.json").write_text("{}")
    (studio_folder / "runs" / names["plain"]).rename(study / names["plain"])
    name, path = f"rates/{names['plain']}", f"rates{slash}{names['plain']}"
    assert name in [row["name"] for row in studio.ask("GET", "/api/runs").json["rows"]]
    for what in ("metrics", "samples", "suspects", "corrections"):
        assert studio.ask("GET", f"/api/runs/{path}/{what}").status == 200, what
    assert f'"name":"{name}"' in studio.ask("GET", f"/api/runs/{path}/events").body.decode()
    assert studio.ask("GET", f"/runs/{path}/report").status == 200
    suspect = studio.ask("GET", f"/api/runs/{path}/suspects").json["suspects"][0]
    assert studio.ask("GET", f"/api/runs/{path}/image?id={quote(suspect['id'])}").status == 200
    decided = decide(studio, path, {"id": suspect["id"], "decision": "keep"})
    assert (decided.status, len(decided.json["decided"])) == (200, 1)
    answer = studio.ask("POST", f"/v1/predict?model={quote(name)}", picture(1), {"Content-Type": "image/png"}).json
    assert [one["model"] for one in answer["pictures"][0]["answers"]] == [name]
    assert studio.ask("GET", f"/compare?run={quote(name)}&run={names['alike']}").status == 200


def test_a_report_may_run_its_own_scripts_in_a_world_of_its_own(
    studio: Server, studio_folder: Path, names: dict[str, str]
) -> None:
    answer = studio.ask("GET", f"/runs/{names['plain']}/report")
    file = studio_folder / "runs" / names["plain"] / "report.html"
    assert not file.exists(), "it is made anew, and not written"
    thawlab.open_run(names["plain"], studio_folder / "runs").report()
    assert answer.body == file.read_bytes()
    file.write_bytes(b"<p>kept")
    assert studio.ask("GET", f"/runs/{names['plain']}/report").body == b"<p>kept"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "'self'" not in policy
    other = studio.ask("GET", "/").headers["content-security-policy"]
    assert "sandbox" not in other
    assert "unsafe-inline" not in other
    file.unlink()
    (file.parent / "results.json").unlink()
    missing = studio.ask("GET", f"/runs/{names['plain']}/report")
    assert missing.status == 422
    assert "has not finished" in missing.message


def test_runs_are_compared_and_nothing_is_written(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in studio_folder.rglob("*"))
    answer = studio.ask("GET", f"/compare?run={names['plain']}&run={names['faster']}")
    assert answer.status == 200
    assert b"lr 0." in answer.body
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert sorted((path, path.stat().st_mtime_ns) for path in studio_folder.rglob("*")) == before
    for query, status in (
        (f"run={names['plain']}", 422),
        ("", 422),
        (f"run={names['plain']}&run={names['plain']}", 422),
        (f"run={names['plain']}&run=nope", 404),
        ("&".join(f"run={names['plain']}" for _ in range(13)), 422),
    ):
        refused = studio.ask("GET", f"/compare?{query}")
        assert refused.status == status, query
        assert "\n" not in refused.message
    (studio_folder / "runs" / names["plain"] / "results.json").unlink()
    assert "has not finished" in studio.ask("GET", f"/compare?run={names['faster']}&run={names['plain']}").message


def test_suspects_are_suspected_labels_and_mistakes(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    folder = studio_folder / "runs" / names["plain"]
    results = json.loads((folder / "results.json").read_text())
    found = studio.ask("GET", f"/api/runs/{names['plain']}/suspects?limit=1000").json
    assert found["classes"] == ["ant", "bee", "cat"]
    assert found["count"] == len(found["suspects"])
    wrong = set()
    for split in ("val", "test"):
        table = load_predictions(folder / "predictions" / f"{split}.npz")
        wrong |= {(name, split) for name in table.ids[table.predicted != table.labels].tolist()}
    suspected = [one["id"] for one in results["label_suspects"]["first"]]
    assert [one["id"] for one in found["suspects"] if one["reason"] == "suspected label"] == suspected
    assert wrong <= {(one["id"], one["split"]) for one in found["suspects"]}
    assert {one["id"] for one in found["suspects"]} == {name for name, _ in wrong} | set(suspected)
    for one in found["suspects"]:
        assert one["given"] == one["id"].partition("/")[0] != one["predicted"]
    shares = [one["probability"] for one in found["suspects"] if one["reason"] == "mistake"]
    assert shares == sorted(shares, reverse=True)
    assert len(studio.ask("GET", f"/api/runs/{names['plain']}/suspects?limit=2").json["suspects"]) == 2
    assert studio.ask("GET", f"/api/runs/{names['plain']}/suspects?limit=0").status == 422


def test_pictures_of_suspects_are_shown_and_of_nothing_else(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    path = f"/api/runs/{names['plain']}/image?id="
    suspects = studio.ask("GET", f"/api/runs/{names['plain']}/suspects").json["suspects"]
    first, second, third, *_ = [one["id"] for one in suspects]
    answer = studio.ask("GET", path + quote(first))
    assert answer.headers["content-type"] == "image/png"
    expected = np.asarray(Image.open(studio_folder / "photos" / first))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body))), expected)
    for wrong in ("", "../../etc/passwd", "/etc/passwd", f"../photos/{first}", "ant/nope.png"):
        assert studio.ask("GET", path + quote(wrong)).status == 422
    Image.effect_noise((2000, 1000), 90).convert("RGB").save(studio_folder / "photos" / second, "JPEG")
    large = Image.open(io.BytesIO(studio.ask("GET", path + quote(second)).body))
    assert large.size == (512, 256)
    Image.new("1", (5001, 5000)).save(studio_folder / "photos" / third)
    refused = studio.ask("GET", path + quote(third))
    assert refused.status == 422
    assert "too large" in refused.message
    (studio_folder / "photos" / first).write_bytes(b"no picture")
    assert studio.ask("GET", path + quote(first)).status == 422


def test_decisions_are_added_to_a_table_beside_the_data(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    name = names["plain"]
    table = studio_folder / "photos-corrections.csv"
    before = sorted((studio_folder / "photos").rglob("*"))
    empty = studio.ask("GET", f"/api/runs/{name}/corrections").json
    assert (empty["file"], empty["decided"]) == (str(table), [])
    assert empty["command"].startswith("thawlab train ")
    assert f"data.corrections={table}" in empty["command"]
    assert not table.exists()
    suspects = studio.ask("GET", f"/api/runs/{name}/suspects").json["suspects"]
    first, second = suspects[:2]
    assert decide(studio, name, {"id": first["id"], "decision": "relabel", "label": first["predicted"]}).status == 200
    assert decide(studio, name, {"id": second["id"], "decision": "exclude"}).status == 200
    answer = decide(studio, name, {"id": first["id"], "decision": "keep"})
    decided = {one["id"]: (one["decision"], one["label"]) for one in answer.json["decided"]}
    assert decided == {first["id"]: ("keep", ""), second["id"]: ("exclude", "")}
    assert studio.ask("GET", f"/api/runs/{name}/corrections").json == answer.json
    assert [row[:5] for row in rows_of(table)] == [
        [first["id"], "relabel", first["predicted"], first["split"], first["given"]],
        [second["id"], "exclude", "", second["split"], second["given"]],
        [first["id"], "keep", "", first["split"], first["given"]],
    ]
    assert sorted((studio_folder / "photos").rglob("*")) == before


def test_a_decision_that_makes_no_sense_is_refused(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    name = names["plain"]
    one = studio.ask("GET", f"/api/runs/{name}/suspects").json["suspects"][0]["id"]
    good = {"id": one, "decision": "keep"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert decide(studio, name, good, {"Content-Type": kind}).status == 415
    for body in (
        {"id": "ant/nope.png", "decision": "keep"},
        {"id": one, "decision": "delete"},
        {"id": one, "decision": "relabel"},
        {"id": one, "decision": "relabel", "label": "ants"},
        {"id": one, "decision": "keep", "label": "ant"},
        {**good, "file": "/tmp/x.csv"},
        {"id": one},
        {"id": 3, "decision": "keep"},
        [],
        b"{",
        b"",
        b"\xff",
    ):
        refused = decide(studio, name, body)
        assert refused.status == 422, body
        assert "\n" not in refused.message
    assert "did you mean 'ant'" in decide(studio, name, {"id": one, "decision": "relabel", "label": "antt"}).message
    assert decide(studio, name, b'{"id": "' + b"x" * 100_000 + b'"}').status == 413
    assert decide(studio, "nope", good).status == 404
    assert not (studio_folder / "photos-corrections.csv").exists()
    (studio_folder / "photos-corrections.csv").write_text("my,own\n1,2\n")
    assert decide(studio, name, good).status == 422
    assert (studio_folder / "photos-corrections.csv").read_text() == "my,own\n1,2\n"


def test_decisions_become_the_next_run(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    name = names["plain"]
    suspects = studio.ask("GET", f"/api/runs/{name}/suspects").json["suspects"][:5]
    for one in suspects:
        decide(studio, name, {"id": one["id"], "decision": "relabel", "label": one["predicted"]})
    command = studio.ask("GET", f"/api/runs/{name}/corrections").json["command"].split()
    [corrections] = [word.partition("=")[2] for word in command if word.startswith("data.corrections=")]
    run = thawlab.train(command[2], runs=command[4], **{"data.corrections": corrections, "phases.0.epochs": 1})
    ids = {
        split: dict(zip(table.ids.tolist(), table.labels.tolist(), strict=True))
        for split in ("val", "test")
        if (table := run.predictions(split))
    }
    classes = run.results.dataset.classes
    for one in suspects:
        assert classes[ids[one["split"]][one["id"]]] == one["predicted"]
    # Its own suspects come with the corrected labels, and go to the same table.
    again = studio.ask("GET", f"/api/runs/{run.folder.name}/corrections").json
    assert again["file"] == str(studio_folder / "photos-corrections.csv")
    for one in studio.ask("GET", f"/api/runs/{run.folder.name}/suspects").json["suspects"][:2]:
        assert decide(studio, run.folder.name, {"id": one["id"], "decision": "unsure"}).status == 200


def test_data_that_are_gone_are_said_to_be(studio: Server, studio_folder: Path, names: dict[str, str]) -> None:
    name = names["plain"]
    one = studio.ask("GET", f"/api/runs/{name}/suspects").json["suspects"][0]["id"]
    (studio_folder / "photos").rename(studio_folder / "elsewhere")
    assert studio.ask("GET", f"/api/runs/{name}/image?id={quote(one)}").status == 422
    assert "not here any more" in decide(studio, name, {"id": one, "decision": "keep"}).message
    assert not (studio_folder / "photos-corrections.csv").exists()


def test_a_token_is_asked_for_and_a_pass_opens_one_page(
    studio_folder: Path, names: dict[str, str], start: Callable[..., Server]
) -> None:
    token = "a-secret-that-is-long-enough"
    (studio_folder / "token").write_text(token)
    server = start("--runs", str(studio_folder / "runs"), "--token-file", str(studio_folder / "token"), verb="studio", models=())
    report, bearer = f"/runs/{names['plain']}/report", {"Authorization": f"Bearer {token}"}
    for path in (
        "/api/runs",
        report,
        f"/api/runs/{names['plain']}/events",
        f"/api/pass?to={quote(report)}",
        "/compare?run=a&run=b",
    ):
        assert server.ask("GET", path).status == 401
    for path in ("/", "/run", "/correct", "/studio.js", "/studio.css"):
        assert server.ask("GET", path).status == 200
    assert server.ask("GET", "/api/runs", headers=bearer).status == 200
    passed = server.ask("GET", f"/api/pass?to={quote(report)}", headers=bearer).json["address"]
    assert re.fullmatch(rf"{report}\?pass=\d+\.[0-9a-f]{{64}}", passed)
    assert server.ask("GET", passed).status == 200
    assert server.ask("GET", passed.replace(names["plain"], names["faster"])).status == 401
    assert server.ask("POST", passed).status == 401
    both = f"/compare?run={names['plain']}&run={names['faster']}"
    assert (
        server.ask("GET", server.ask("GET", f"/api/pass?to={quote(both, safe='')}", headers=bearer).json["address"]).status == 200
    )
    for wrong in ("/api/runs", "//example.org/runs/", "https://example.org/", "/runs/a b"):
        assert server.ask("GET", f"/api/pass?to={quote(wrong, safe='')}", headers=bearer).status == 422


def test_a_page_of_another_site_cannot_decide(studio: Server, names: dict[str, str], studio_folder: Path) -> None:
    one = studio.ask("GET", f"/api/runs/{names['plain']}/suspects").json["suspects"][0]["id"]
    body = {"id": one, "decision": "exclude"}
    assert decide(studio, names["plain"], body, {**JSON, "Origin": "https://example.org"}).status == 403
    assert not (studio_folder / "photos-corrections.csv").exists()


def test_nothing_deletes_or_trains(studio_of_all: Server) -> None:
    schema = studio_of_all.ask("GET", "/openapi.json").json
    methods = {(method, path) for path, entry in schema["paths"].items() for method in entry if method != "get"}
    assert methods == {("post", "/v1/predict"), ("post", "/v1/explain"), ("post", "/api/runs/{name}/corrections")}
    body = schema["paths"]["/api/runs/{name}/corrections"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["decision"]["enum"] == ["keep", "relabel", "exclude", "unsure"]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(thawlab.UsageError, match="there is no such folder"):
        from thawlab import api

        api.studio(tmp_path / "nowhere")


def test_a_device_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(thawlab.UsageError, match="no device 'cudaa'"):
        from thawlab import api

        api.studio(tmp_path, port=0, device="cudaa")


def test_requests_that_are_cut_off_leave_the_server_well(studio_of_all: Server, trained_on_noise: Path) -> None:
    name = next((trained_on_noise / "runs").iterdir()).name
    for path in ("/compare?run=a", f"/api/runs/{name}/events", f"/runs/{name}/report"):
        connection = http.client.HTTPConnection("127.0.0.1", studio_of_all.port)
        connection.request("GET", path)
        connection.close()
    assert studio_of_all.ask("GET", "/readyz").status == 200
