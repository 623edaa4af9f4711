"""Compares panoptube's `--official` metrics with stored results of the published scripts, number by number.

    python benchmarks/check_metrics.py FOLDER

FOLDER holds cases.json and a folder for each case with its input and expected.json. Counts must be
identical, scores within 1e-12; where a script stopped with an error, an error of ours is expected, and what
it had computed until then must agree too. One row for each case and block; the exit code is 1 if a row
fails or if something was not compared, 2 if the folder can't be used.

Two blocks are left out, on purpose: `stq_deeplab2_numpy2` (single-precision sums of the script under NumPy
2) and `pq_torchmetrics_informative` (another metric).
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.flow.files import read_flow
from panoptube.flow.warp import warp_ids_bilinear, warp_nearest
from panoptube.metrics.official_files import (
    Video,
    cityscapes_videos,
    panopticapi_frames,
    read_categories,
    read_json,
    viper_videos,
    vipseg_videos,
)
from panoptube.metrics.official_stq import official_confusion, official_stq
from panoptube.metrics.official_tracking import official_tracking
from panoptube.metrics.official_vpq import (
    CITYSCAPES_RULES,
    PANOPTICAPI_RULES,
    VIPER_EXCLUDED_ID,
    VIPER_RULES,
    Rules,
    average,
    count_videos,
)
from panoptube.metrics.protocol import CITYSCAPES_VPS, VIPER, VIPSEG_8, Protocol
from panoptube.metrics.quality import MeanQuality, TubeCounts, WindowResult
from panoptube.metrics.tc import TC
from panoptube.metrics.vc import VC
from panoptube.panoptic.frame import Category

TOLERANCE = 1e-12
NOT_COMPARED = ("stq_deeplab2_numpy2", "pq_torchmetrics_informative")
NOTES = ("numpy", "stderr", "version", "error")
"""Entries about the script's run, not of its result."""
FLOAT_FLOW_ALLOWANCE = 0.01
"""Share of the pixels that may differ where the flow is arbitrary floats (t = 2) and the maps aren't the
same.
"""

Block = dict[str, Any]


class Stopped(Exception):
    """An error of ours, with what was computed before."""

    def __init__(self, error: UserError, partial: Block) -> None:
        super().__init__(str(error))
        self.partial = partial


# --- what we compute, in the form of expected.json --------------------------------------------------------


def cityscapes_block(case: Path, expected: Block) -> Block:
    del expected
    block: Block = {"k": {}, "per_video": {}}
    try:
        truth, videos = city_input(case)
        categories = read_categories(truth)
        block |= vpq_parts(block, videos, CITYSCAPES_VPS, categories, CITYSCAPES_RULES)
    except UserError as error:
        raise Stopped(error, block) from error
    block["final"] = percent_means(block.pop("results"), ("vpq_all", "vpq_thing", "vpq_stuff"))
    block["txt"] = city_texts(block, CITYSCAPES_VPS, categories)
    return block


def viper_block(case: Path, expected: Block) -> Block:
    block: Block = {"k": {}, "per_video": {}}
    truth = read_json(case / "gt/viper_panoptic_val_day_video.json")
    categories = read_categories(truth)
    folders = case / "gt/panoptic_video", case / "pred/pan"
    try:
        videos = viper_videos(truth, read_json(case / "pred/pred.json"), *folders, expected.get("n_video"))
        block |= vpq_parts(block, videos, VIPER, categories, VIPER_RULES, windows_by_video=True)
    except UserError as error:
        raise Stopped(error, block) from error
    block["final"] = percent_means(block.pop("results"), ("vpq_all", "vpq_thing", "vpq_stuff"))
    block["n_video"] = len(videos)
    block["windows"] = {str(VIPER.k(n)): n for n in VIPER.windows}
    block["txt"] = {
        f"vpq_nf{n:02d}.txt": text(
            f"============== for {n}-frame{'s' if n > 1 else ''} =============",
            "          |    PQ     SQ     RQ     N",
            "",
            block["k"][str(VIPER.k(n))],
        )
        for n in VIPER.windows
    }
    return block


def vipseg_block(case: Path, expected: Block) -> Block:
    del expected
    block: Block = {"k": {}, "per_video": {}}
    truth = read_json(case / "gt/panoptic_gt_vipseg.json")
    categories = read_categories(truth)
    try:
        block |= vpq_parts(block, vipseg_input(case, truth), VIPSEG_8, categories, CITYSCAPES_RULES)
    except UserError as error:
        raise Stopped(error, {"window": occurring(block["k"])}) from error
    results = block["results"]
    files = city_texts({"k": block["k"], "final": {}}, VIPSEG_8, categories, step=5)
    finals = percent_means(results, ("vpq_all", "vpq_thing", "vpq_stuff"))
    files["vpq-final.txt"] = "".join(f"{name}:{value:.4f}\n" for name, value in finals.items())
    names = ("all", "things", "stuff")
    return {
        "window": occurring(block["k"]),
        "final_script_1_2_4_6_8": percent_means(results, names),
        "final_paper_1_2_4_6": percent_means(results[:4], names),
        "txt": files,
    }


def pq_block(case: Path, expected: Block) -> Block:
    """panopticapi's; hotcoco's is the same without the classes."""
    truth = read_json(case / "gt/panoptic_gt.json")
    try:
        frames = panopticapi_frames(
            truth, read_json(case / "pred/pred.json"), case / "gt/panoptic_video", case / "pred/pan_pred"
        )
        categories = read_categories(truth)
        counted = count_videos([[f] for f in frames], 1, categories, PANOPTICAPI_RULES)
        block = window_block(average(counted, 1, CITYSCAPES_VPS, categories), categories)
    except UserError as error:
        raise Stopped(error, {}) from error
    if "per_class" not in expected:
        del block["per_class"]
    return block


def stq_block(case: Path, expected: Block) -> Block:
    del expected
    try:
        truth, videos = city_input(case)
        categories = read_categories(truth)
        block = stq_parts(videos, categories, "deeplab2")
        return block | {"confusion": official_confusion(videos, categories, "deeplab2").tolist()}
    except UserError as error:
        raise Stopped(error, {}) from error


def stq_vipseg_block(case: Path, expected: Block) -> Block:
    del expected
    truth = read_json(case / "gt/panoptic_gt_vipseg.json")
    try:
        return stq_parts(vipseg_input(case, truth), read_categories(truth), "vipseg")
    except UserError as error:
        raise Stopped(error, {}) from error


def tracking_block(case: Path, expected: Block) -> Block:
    try:
        truth, videos = city_input(case)
        tracking = official_tracking(videos, read_categories(truth))
    except UserError as error:
        raise Stopped(error, {}) from error
    labels = {c.id: i for i, c in enumerate(tracking.taxonomy.categories)}
    block: Block = {}
    for name, category in (("car", 13), ("pedestrian", 11)):
        score = tracking.compute_class(labels[category])
        hota = score.fields["HOTA"]
        wanted = expected.get(name, {}).get("HOTA", {})
        block[name] = {
            "HOTA": {n: float(np.mean(v)) for n, v in hota.items() if n in wanted},
            "HOTA_alpha": hota["HOTA"].tolist(),
            "CLEAR": {n: float(v) for n, v in score.fields["CLEAR"].items()},
            "Identity": {n: float(v) for n, v in score.fields["Identity"].items()},
            "per_seq_HOTA": list(score.hota_by_clip),
        }
    return block


def tc_block(case: Path, expected: Block) -> Block:
    block: Block = {}
    for name, official in (("bilinear", True), ("nearest", False)):
        total = TC([str(i) for i in range(19)], "given", official)
        rows: list[Block] = []
        for pair in json.loads((case / "pairs.json").read_text()):
            before, after = (
                cv2.imread(str(case / pair[n]), cv2.IMREAD_UNCHANGED) for n in ("pred", "pred_next")
            )
            if before is None or after is None:
                raise Stopped(UserError(f"a map of {pair} can't be read"), {})
            flow = read_flow(case / pair["flow"])
            warped = (warp_ids_bilinear if official else warp_nearest)(after, flow)
            one = TC(total.names, "given", official)
            one.update(before, after, flow)
            total.merge(one)
            rows.append(
                {
                    "pair": pair["pred"],
                    **tc_counts(one),
                    "warped_sum": int(warped.sum(dtype=np.int64)),
                    "warped_crc": zlib.crc32(np.ascontiguousarray(warped).tobytes()),
                    # For the allowance; not compared.
                    "_allowed": FLOAT_FLOW_ALLOWANCE * warped.size if pair["t"] == 2 else 0,
                }
            )
        union, target, hits = total.union, total.target, total.intersection
        iou, accuracy = hits / (union + 1e-10), hits / (target + 1e-10)
        present = union > 0
        block[name] = {
            "mIoU": float(iou.mean()),
            "mAcc": float(accuracy.mean()),
            "allAcc": float(hits.sum() / (target.sum() + 1e-10)),
            "iou_class": iou.tolist(),
            "accuracy_class": accuracy.tolist(),
            "mIoU_present_classes": float(iou[present].mean()),
            **tc_counts(total),
            "per_pair": rows,
        }
        allow_float_flow(block[name], expected.get(name, {}))
    return block


def vc_block(case: Path, expected: Block) -> Block:
    del expected
    script = VC(official=True)
    by_video: dict[str, list[float]] = {"VC8": [], "VC16": []}
    for path in sorted(case.glob("*.npz")):
        clip = np.load(path)
        for length in (8, 16):
            alone = VC((length,), official=True)
            feed(alone, clip["pred"], clip["gt"])
            score = alone.compute().scores[0]
            if score[2]:
                by_video[f"VC{length}"].append(score[1])
        feed(script, clip["pred"], clip["gt"])
    scores = {f"VC{length}": score for length, score, _ in script.compute().scores}
    return {"script": scores, "per_video_mean_in_order_of_videos_long_enough": by_video}


BLOCKS: dict[tuple[str, str], Callable[[Path, Block], Block]] = {
    ("cityscapes_vps", "vpq_cityscapes"): cityscapes_block,
    ("cityscapes_vps", "pq_panopticapi"): pq_block,
    ("cityscapes_vps", "pq_hotcoco"): pq_block,
    ("cityscapes_vps", "stq_deeplab2"): stq_block,
    ("cityscapes_vps", "tracking_kitti_mots"): tracking_block,
    ("viper", "vpq_viper"): viper_block,
    ("vipseg", "vpq_vipseg"): vipseg_block,
    ("vipseg", "stq_vipseg"): stq_vipseg_block,
    ("tc", "tc"): tc_block,
    ("vc", "vc"): vc_block,
}


def city_input(case: Path) -> tuple[Block, list[Video]]:
    truth = read_json(case / "gt/panoptic_gt.json")
    pred = read_json(case / "pred/pred.json")
    return truth, cityscapes_videos(truth, pred, case / "gt/panoptic_video", case / "pred/pan_pred")


def vipseg_input(case: Path, truth: Block) -> list[Video]:
    pred = read_json(case / "pred/pred.json")
    return vipseg_videos(truth, pred, case / "gt/panomasksRGB", case / "pred/pan_pred")


def vpq_parts(
    block: Block,
    videos: Sequence[Video],
    protocol: Protocol,
    categories: Sequence[Category],
    rules: Rules,
    windows_by_video: bool = False,
) -> Block:
    """Fills `k` and `per_video` window by window, so that they are there if one stops."""
    results: list[WindowResult] = []
    for window in protocol.windows:
        counted = count_videos(videos, window, categories, rules)
        k = str(protocol.k(window))
        block["per_video"][k] = [
            {"frames": len(video)}
            | ({"windows": counts.windows} if windows_by_video else {})
            | {"per_class": counts_block(counts, categories)}
            for video, counts in zip(videos, counted)
        ]
        result = average(counted, window, protocol, categories)
        block["k"][k] = window_block(result, [c for c in categories if kept(c, protocol)])
        results.append(result)
    return {"results": results}


def kept(category: Category, protocol: Protocol) -> bool:
    return protocol.name != "viper" or category.id != VIPER_EXCLUDED_ID


def counts_block(counts: TubeCounts, categories: Sequence[Category]) -> Block:
    """The classes with an event."""
    return {
        str(c.id): {
            "iou": float(counts.iou[i]),
            "tp": int(counts.tp[i]),
            "fp": int(counts.fp[i]),
            "fn": int(counts.fn[i]),
        }
        for i, c in enumerate(categories)
        if counts.seen[i]
    }


def window_block(result: WindowResult, categories: Sequence[Category]) -> Block:
    def mean(m: MeanQuality) -> Block:
        return {"pq": m.pq, "sq": m.sq, "rq": m.rq, "n": m.classes}

    names = ("pq", "sq", "rq", "iou", "tp", "fp", "fn")
    return {
        "per_class": {
            str(c.id): {n: getattr(quality, n) for n in names}
            for c, quality in zip(categories, result.classes, strict=True)
        },
        "all": mean(result.all),
        "things": mean(result.things),
        "stuff": mean(result.stuff),
    }


def occurring(windows: Block) -> Block:
    """The same without classes that never occur."""
    return {
        k: {**w, "per_class": {i: c for i, c in w["per_class"].items() if c["tp"] + c["fp"] + c["fn"]}}
        for k, w in windows.items()
    }


def percent_means(results: Sequence[WindowResult], names: tuple[str, str, str]) -> Block:
    groups = [[r.all.pq for r in results], [r.things.pq for r in results], [r.stuff.pq for r in results]]
    return {name: float(np.mean([100 * pq for pq in group])) for name, group in zip(names, groups)}


def stq_parts(videos: Sequence[Video], categories: Sequence[Category], script: Any) -> Block:
    result = official_stq(videos, categories, script)
    return {
        "STQ": result.stq,
        "AQ": result.aq,
        "IoU": result.sq,
        "STQ_per_seq": [c.stq for c in result.clips],
        "AQ_per_seq": [c.aq for c in result.clips],
        "IoU_per_seq": [c.sq for c in result.clips],
        "ID_per_seq": [int(c.name) for c in result.clips],
        "Length_per_seq": [c.frames for c in result.clips],
        "tubes_per_seq": [c.tubes for c in result.clips],
    }


def city_texts(block: Block, protocol: Protocol, categories: Sequence[Category], step: int = 0) -> Block:
    """The files that the script writes; VIPSeg's are named by `step` times (window - 1)."""
    del categories
    files = {
        f"vpq-{step * (n - 1) if step else protocol.k(n)}.txt": text(
            "=" * 48, "          |    PQ     SQ     RQ    N", "-" * 38, block["k"][str(protocol.k(n))]
        )
        for n in protocol.windows
    }
    files["vpq-final.txt"] = "".join(f"{name}:{value:.4f}\n" for name, value in block["final"].items())
    return files


def text(title: str, columns: str, line: str, window: Block) -> str:
    lines = [title, columns, *([line] if line else [])]
    for name, group in (("All", "all"), ("Things", "things"), ("Stuff", "stuff")):
        m = window[group]
        lines.append(
            f"{name:10}| {100 * m['pq']:5.1f}  {100 * m['sq']:5.1f}  {100 * m['rq']:5.1f} {m['n']:5d}"
        )
    lines.append("IDX |    PQ    SQ    RQ    IoU      TP      FP      FN")
    for i, c in window["per_class"].items():
        scores = " ".join(f"{100 * c[n]:5.1f}" for n in ("pq", "sq", "rq"))
        lines.append(f"{int(i):4d} | {scores} {c['iou']:6.1f} {c['tp']:7d} {c['fp']:7d} {c['fn']:7d}")
    return "\n".join(lines) + "\n"


def tc_counts(total: TC) -> Block:
    return {n: getattr(total, n).tolist() for n in ("intersection", "union", "target")}


def allow_float_flow(ours: Block, theirs: Block) -> None:
    """Where a pair has flow in arbitrary floats, and the warped maps aren't the same, take what is near
    enough.

    Resample2d's last digit depends on the machine it was compiled for, so a few pixels may fall to another
    class.
    """
    rows = theirs.get("per_pair", [])
    inexact = 0.0
    for mine, other in zip(ours["per_pair"], rows):
        allowed = mine.pop("_allowed")
        differs = any(mine[n] != other.get(n) for n in mine)
        if (
            allowed
            and mine["warped_crc"] != other.get("warped_crc")
            and differs
            and near(mine, other, allowed)
        ):
            inexact += allowed
            mine.update({n: other[n] for n in mine})
    if inexact and near(ours, theirs, inexact):
        for name in ours:
            if name != "per_pair":
                ours[name] = theirs[name]


def near(mine: Block, theirs: Block, allowed: float) -> bool:
    """Whether the counts differ by no more pixels than allowed, and the maps do differ."""
    names = ("intersection", "union", "target")
    if "warped_sum" in mine and mine["warped_sum"] == theirs.get("warped_sum"):
        return False
    return all(
        len(mine[n]) == len(theirs.get(n, ()))
        and float(np.abs(np.subtract(mine[n], theirs[n])).sum()) <= 2 * allowed
        for n in names
    )


def feed(metric: VC, predictions: NDArray[np.uint8], truths: NDArray[np.uint8]) -> None:
    for prediction, truth in zip(predictions, truths):
        metric.update(prediction, truth)
    metric.end_clip()


# --- comparison -------------------------------------------------------------------------------------------


def differences(expected: Any, ours: Any, place: str, found: list[str]) -> tuple[int, float]:
    """Number of values compared, and the largest difference of scores; what differs goes to `found`."""
    if isinstance(expected, dict):
        count, largest = 0, 0.0
        for name, value in expected.items():
            if name in NOTES:
                continue
            if not isinstance(ours, dict) or name not in ours:
                found.append(f"{place}.{name}: not computed")
                continue
            n, d = differences(value, ours[name], f"{place}.{name}", found)
            count, largest = count + n, max(largest, d)
        surplus = [n for n in (ours if isinstance(ours, dict) else {}) if n not in expected]
        found.extend(f"{place}.{n}: not expected" for n in surplus)
        return count, largest
    if isinstance(expected, list):
        if not isinstance(ours, list) or len(ours) != len(expected):
            found.append(f"{place}: expected {len(expected)} entries")
            return 0, 0.0
        count, largest = 0, 0.0
        for i, (value, mine) in enumerate(zip(expected, ours)):
            n, d = differences(value, mine, f"{place}[{i}]", found)
            count, largest = count + n, max(largest, d)
        return count, largest
    return 1, difference(expected, ours, place, found)


def difference(expected: Any, ours: Any, place: str, found: list[str]) -> float:
    """Of one value. Whole numbers and texts must be equal; scores in percent count as fractions."""
    if isinstance(expected, str) and expected in ("nan", "inf", "-inf"):
        expected = float(expected)
    same = expected == ours
    apart = 0.0
    number = isinstance(expected, int | float) and isinstance(ours, int | float)
    if number and not same:
        if math.isnan(expected) and math.isnan(ours):
            same = True
        elif isinstance(expected, float) or isinstance(ours, float):
            apart = abs(expected - ours)
            if ".final" in place:
                apart /= 100
            same = apart <= TOLERANCE
    if not same:
        found.append(f"{place}: expected {expected!r}, got {ours!r}")
    return apart if math.isfinite(apart) else math.inf


def check(case: Path, layout: str, name: str, expected: Block) -> tuple[bool, str]:
    """Verdict on a block, and a remark."""
    compute = BLOCKS.get((layout, name))
    if compute is None:
        return False, f"not compared: no such block in layout {layout!r}"
    raises = expected["error"]["raises"] if "error" in expected else None
    try:
        ours = compute(case, expected)
    except Stopped as stopped:
        if raises is None:
            return False, f"error of ours: {stopped}"
        ours, remark = stopped.partial, f"both stop ({raises}); ours: {stopped}"
    except UserError as error:
        return False, f"error of ours: {error}"
    except Exception as error:  # input that nothing foresaw must not hide the cases after it
        return False, f"error of ours, without a message for it: {error!r}"
    else:
        if raises is not None:
            return False, f"the script stops with {raises}, ours doesn't"
        remark = ""
    found: list[str] = []
    count, largest = differences(expected, ours, name, found)
    if found:
        return False, f"{len(found)} of {count} differ; {found[0]}"
    if not count and raises is None:
        return False, "not compared: the block is empty"
    return True, remark or f"{count} values, scores within {largest:.1e}"


def check_folder(folder: Path) -> int:
    """Prints a row for each case and block; how many failed.

    Raises:
        UserError: the folder has no cases.
    """
    cases = read_json(folder / "cases.json").get("cases")
    if not cases:
        raise UserError(f"{folder / 'cases.json'} lists no cases")
    failed = rows = 0
    unlisted = {p.parent.name for p in folder.glob("*/expected.json")} - {c["case"] for c in cases}
    jobs = [(c["case"], c["layout"], c.get("blocks", [])) for c in cases]
    jobs += [(name, "not in cases.json", []) for name in sorted(unlisted)]
    for case, layout, listed in jobs:
        try:
            expected = read_json(folder / case / "expected.json")
        except UserError as error:
            rows, failed = rows + 1, failed + 1
            print(f"{case:28} {'':22} FAIL  {error}")
            continue
        for name in sorted({*listed, *expected} - set(NOT_COMPARED)):
            if name in expected:
                passed, remark = check(folder / case, layout, name, expected[name])
            else:
                passed, remark = False, "not compared: expected.json lacks this block"
            rows, failed = rows + 1, failed + (not passed)
            print(f"{case:28} {name:22} {'ok  ' if passed else 'FAIL'}  {remark}", flush=True)
    print(f"{rows} blocks of {len(jobs)} cases: {rows - failed} agree, {failed} don't")
    return failed


def main(args: Sequence[str]) -> int:
    if len(args) != 1 or args[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if args[:1] in (["-h"], ["--help"]) else 2
    try:
        return 1 if check_folder(Path(args[0])) else 0
    except UserError as error:
        print(f"check_metrics: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
