"""What panoptube does, on a CPU in minutes: a real video labelled, and a score on streets never trained on.

python examples/demo.py [folder]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from panoptube import Clip, PanopticFrame, VideoPredictor, load_weights
from panoptube.data.streets import street_clip
from panoptube.evaluate import always, evaluate_clips, most_frequent_class
from panoptube.predict import predict, shipped_weights

VIDEO = Path(__file__).parent / "vtest.mp4"
SEEDS = range(5)  # training draws its streets from other seeds
console = Console()


def label_a_video(out: Path) -> None:
    console.print(f"[bold]1. {VIDEO.name}[/]: every pixel labelled, everybody followed")
    done = predict(VIDEO, out, overwrite=True)
    console.print(f"   {done.frames} frames, {done.tracks} tracks, {done.fps:.1f} frames/s on this machine")
    console.print(f"   to look at:       {out / 'overlay.mp4'}")
    console.print(f"   to compute with:  {out / 'panoptic.json'} and {out / 'panoptic'}{'/'}")


def score_on_streets() -> None:
    console.print(f"\n[bold]2. {len(SEEDS)} freshly drawn streets[/]: the same weights against exact truth")
    network, _ = load_weights(shipped_weights())
    clips = [street_clip(seed) for seed in SEEDS]

    def follow(clip: Clip) -> Iterator[PanopticFrame]:
        predictor = VideoPredictor(network)  # one per video: it remembers what it has seen
        for t in range(len(clip)):
            yield predictor.step(clip.image(t))

    ours = evaluate_clips(follow, clips)
    # Must be beaten: knows the truth of these very clips, but looks at no image.
    guess = most_frequent_class(clips, clips[0].taxonomy, clips[0].size)
    baseline = evaluate_clips(always(guess), clips)

    table = Table("", "VPQ", "things", "stuff")
    for name, result in (("panoptube", ours), ("most frequent class", baseline)):
        table.add_row(name, *(f"{100 * part.pq:.1f}" for part in (result.all, result.things, result.stuff)))
    console.print(table)


if __name__ == "__main__":
    label_a_video(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
    score_on_streets()
