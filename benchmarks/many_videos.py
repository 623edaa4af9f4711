"""Whether two workers label many videos faster than one, and by how much.

    python benchmarks/many_videos.py [--videos 40] [--frames 50] [--weights FILE] [--json FILE]

Makes short films of streets and labels them with 1 and with 2 workers, start of the workers included. With
one worker, it has all cores; with two, each has half of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from panoptube.data.streets import street_clip
from panoptube.predict_many import predict_many
from panoptube.video import write_video

SIZE = (192, 384)
WORKERS = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    taken: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.videos):
            clip = street_clip(number, arguments.frames, SIZE)
            with write_video(folder / f"{number}.mp4", 25, SIZE) as write:
                for t in range(len(clip)):
                    write(clip.image(t))
        videos = folder / "videos.txt"
        videos.write_text("\n".join(f"{number}.mp4" for number in range(arguments.videos)))
        for workers in WORKERS:
            begin = time.perf_counter()
            done = predict_many(videos, folder / f"out-{workers}", workers, arguments.weights)
            taken[workers] = time.perf_counter() - begin
            if done.failed:
                raise SystemExit(f"{done.failed} videos failed: {done.videos}")

    one, two = (taken[workers] for workers in WORKERS)
    result = {
        "videos": arguments.videos,
        "frames_each": arguments.frames,
        "cores": os.cpu_count(),
        "seconds_1_worker": one,
        "seconds_2_workers": two,
        "times_as_fast": one / two,
    }
    table = Table("many videos", "")
    for key, value in result.items():
        table.add_row(key.replace("_", " "), f"{value:.2f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
