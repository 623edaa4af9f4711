"""video.py: what is written is read back, in every form, and every broken input is named."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile

from panoptube.errors import UserError
from panoptube.video import Choice, VideoSource, decode, open_video, seconds, write_video, written_size

SIZE = (48, 64)


def frames(count: int = 10, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Smooth pictures that differ by more than coding loses: red grows to the right, blue with time."""
    y, x = np.mgrid[: size[0], : size[1]]
    return [
        np.stack([x * 2 + 10, y * 2 + 10, np.full_like(x, 20 + 20 * t)], 2).astype(np.uint8)
        for t in range(count)
    ]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    with write_video(path, 12.5, SIZE) as write:
        for image in frames():
            write(image)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    for t, image in enumerate(frames(12)):
        Pillow.fromarray(image).save(path / f"f{t}.png")
    return path


def test_a_written_video_is_read_back(film: Path) -> None:
    video = open_video(film)
    assert (video.name, video.size, video.fps, video.length) == ("film.mp4", SIZE, 12.5, 10)
    read = list(video)
    assert len(read) == 10
    for image, expected in zip(read, frames()):
        assert image.shape == (*SIZE, 3)
        assert image.dtype == np.uint8
        # Lossy, but colours keep their place: a wrong matrix or swapped channels are far beyond this.
        assert np.abs(image.astype(int) - expected).mean() < 2.5
    assert video.notes == []
    assert len(list(video)) == 10, "a second iteration starts anew"
    assert [p.name for p in film.parent.iterdir()] == ["film.mp4"]


def test_browsers_play_it(film: Path) -> None:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == 1
    data = film.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"


@pytest.mark.parametrize("fps", [30000 / 1001, 10.0, 7.5])
def test_rate_is_kept(tmp_path: Path, fps: float) -> None:
    with write_video(tmp_path / "v.mp4", fps, SIZE) as write:
        for image in frames(3):
            write(image)
    assert open_video(tmp_path / "v.mp4").fps == pytest.approx(fps, rel=1e-6)
    assert open_video(tmp_path / "v.mp4", fps=24).fps == 24


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path: Path) -> None:
    image = frames(1, (47, 63))[0]
    with write_video(tmp_path / "odd.mp4", 10, (47, 63)) as write:
        write(image)
    (read,) = open_video(tmp_path / "odd.mp4")
    assert read.shape == (48, 64, 3)
    assert np.abs(read.astype(int) - np.pad(image, ((0, 1), (0, 1), (0, 0)), "edge")).mean() < 2.5


@pytest.mark.parametrize(
    ("size", "written"), [((1, 1), (16, 16)), ((15, 33), (16, 34)), ((2, 64), (16, 64)), ((16, 18), (16, 18))]
)
def test_tiny_frames_grow(size: tuple[int, int], written: tuple[int, int], tmp_path: Path) -> None:
    assert written_size(size) == written
    with write_video(tmp_path / "tiny.mp4", 10, size) as write:
        write(np.full((*size, 3), 90, np.uint8))
    (read,) = open_video(tmp_path / "tiny.mp4")
    assert read.shape == (*written, 3)
    assert np.abs(read.astype(int) - 90).max() < 5


def test_frames_too_large_for_a_video(tmp_path: Path) -> None:
    large = write_video(tmp_path / "large.mp4", 10, (1, 20000))
    with pytest.raises(UserError, match=r"20000x1 are too large.*--max-size 16384"), large:
        pass
    assert not list(tmp_path.iterdir())


def test_what_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    for name, source in (("is_dir", folder), ("iterdir", folder), ("is_file", folder / "*.png")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refuse)
            with pytest.raises(UserError, match=r"pictures.* may not be read; see its permissions$"):
                open_video(source)


def test_streams_that_appear_later(film: Path) -> None:
    """PyAV raises IndexError for a stream that MPEG-TS announces later, which damaged files do."""

    class Announcing:
        def __init__(self, container: av.container.InputContainer) -> None:
            self.container, self.streams = container, container.streams

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            for number, packet in enumerate(self.container.demux(stream)):
                if number == 3:
                    raise IndexError("list index out of range")
                yield packet

    broken: list[int] = []
    with av.open(str(film)) as container:
        found = list(decode(Announcing(container), lambda: broken.append(1)))  # type: ignore[arg-type]
    assert len(found) == 10 - len(broken)
    assert len(broken) == 2


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def write_a_wrong_frame() -> None:
        with write_video(tmp_path / "v.mp4", 10, SIZE) as write:
            write(frames(1)[0])
            write(np.zeros((48, 65, 3), np.uint8))

    with pytest.raises(ValueError, match="expected"):
        write_a_wrong_frame()
    assert list(tmp_path.iterdir()) == []


def test_an_older_video_stays_until_the_new_one_is_complete(film: Path) -> None:
    before = film.read_bytes()
    with pytest.raises(ValueError, match="expected"), write_video(film, 10, SIZE) as write:
        write(np.zeros((48, 65, 3), np.uint8))
    assert film.read_bytes() == before


def test_names_and_folders_to_write_to_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"end its name in \.mp4"), write_video(tmp_path / "v.avi", 10, SIZE):
        pass
    with pytest.raises(UserError, match="can't be written"), write_video(tmp_path / "no" / "v.mp4", 10, SIZE):
        pass


def test_pictures_come_in_natural_order(folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    (folder / ".f0.png").write_text("hidden")
    video = open_video(folder)
    assert (video.name, video.size, video.fps, video.length) == ("pictures", SIZE, 10, 12)
    np.testing.assert_array_equal(list(video), frames(12))  # f10 after f9; lossless


def test_globs_and_single_pictures(folder: Path) -> None:
    np.testing.assert_array_equal(
        list(open_video(str(folder / "f1*.png"), fps=5)), [frames(12)[t] for t in (1, 10, 11)]
    )
    np.testing.assert_array_equal(list(open_video(folder / "f3.png")), frames(12)[3:4])


def test_a_folder_is_opened_without_decoding_its_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
        video = open_video(folder)
    assert len(list(video)) == 12


@pytest.mark.parametrize("ending", ["jpg", "bmp", "webp", "tif"])
def test_kinds_of_pictures(tmp_path: Path, ending: str) -> None:
    Pillow.fromarray(frames(1)[0]).save(tmp_path / f"a.{ending}")
    (image,) = open_video(tmp_path)
    assert np.abs(image.astype(int) - frames(1)[0]).mean() < 6


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    grey = frames(1)[0][..., 0]
    Pillow.fromarray(grey).save(tmp_path / "0.png")
    Pillow.fromarray(np.dstack([grey] * 4)).save(tmp_path / "1.png")
    read = list(open_video(tmp_path))
    assert len(read) == 2
    for image in read:
        np.testing.assert_array_equal(image, np.dstack([grey] * 3))


def test_orientation_of_photos_is_applied(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Pillow.fromarray(frames(1)[0]).save(tmp_path / "a.png", exif=exif)
    video = open_video(tmp_path)
    assert video.size == (64, 48)
    np.testing.assert_array_equal(next(iter(video)), np.rot90(frames(1)[0], -1))


def test_rotation_of_videos_is_applied(film: Path) -> None:
    upright = next(iter(open_video(film)))
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12 8.3.2, version 0: a b u c d v x y w
    assert struct.unpack(">9i", data[matrix : matrix + 36])[:5] == (65536, 0, 0, 0, 65536)
    data[matrix : matrix + 20] = struct.pack(">5i", 0, 65536, 0, -65536, 0)
    film.write_bytes(data)
    video = open_video(film)
    assert video.size == (64, 48)
    np.testing.assert_array_equal(next(iter(video)), np.rot90(upright, -1))


def test_rotation_of_videos_is_applied_to_shrunk_ones(film: Path) -> None:
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 20] = struct.pack(">5i", 0, 65536, 0, -65536, 0)
    film.write_bytes(data)
    video = open_video(film, choice=Choice(max_size=32))
    assert video.size == (32, 24)
    first = next(iter(video))
    assert first.shape == (32, 24, 3)
    # Red grew to the right: turned clockwise, it grows downwards.
    assert first[-1, 12, 0] > first[0, 12, 0] + 80


UNEVEN = [0, 0.04, 0.08, 0.5, 0.52, 1.52]


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Frames as phones and screen recorders make them, when something happens."""
    path = tmp_path / "uneven.mp4"
    with write_video(path, 12.5, SIZE) as write:
        for image, time in zip(frames(), UNEVEN):
            write(image, time)
    return path


def times(video: VideoSource) -> list[float]:
    return [round(frame.time, 4) for frame in video.frames()]


def test_uneven_times_are_written_and_read(uneven: Path) -> None:
    video = open_video(uneven)
    assert times(video) == UNEVEN
    assert video.length == 6
    with av.open(str(uneven)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
        shown = sorted(float(p.pts * p.time_base) for p in packets)
    assert shown == pytest.approx(UNEVEN, abs=1e-4), "what a player goes by"
    assert times(open_video(uneven, fps=10)) == [0, 0.1, 0.2, 0.3, 0.4, 0.5], "unless told otherwise"


def test_times_that_do_not_grow_can_not_be_written(tmp_path: Path) -> None:
    with write_video(tmp_path / "v.mp4", 10, SIZE) as write:
        write(frames()[0], 0.1)
        with pytest.raises(ValueError, match=r"at 0\.1 s is not later"):
            write(frames()[1], 0.1)


def test_a_single_frame_lasts_as_long_as_the_rate_says(tmp_path: Path) -> None:
    with write_video(tmp_path / "v.mp4", 5, SIZE) as write:
        write(frames()[0], 0.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.duration == pytest.approx(200_000, abs=2000)


def test_times_begin_at_the_first_frame(tmp_path: Path) -> None:
    """MPEG-TS begins at 1.4 s, and a cut piece of a broadcast anywhere."""
    path = tmp_path / "v.ts"
    write_ts(path, frames(10))
    assert times(open_video(path)) == [round(t / 10, 4) for t in range(10)]


def write_ts(path: Path, images: list[np.ndarray], fps: int = 10) -> None:
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", fps)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))


def blue(video: VideoSource) -> list[int]:
    """Which of `frames` they are."""
    return [round((float(image[..., 2].mean()) - 20) / 20) for image in video]


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [
        (Choice(stride=3), [0, 3, 6, 9]),
        (Choice(start=0.4), [5, 6, 7, 8, 9]),
        (Choice(start=0.3), [4, 5, 6, 7, 8, 9]),
        (Choice(end=0.24), [0, 1, 2]),
        (Choice(end=100), list(range(10))),
        (Choice(stride=2, start=0.08, end=0.5), [1, 3, 5]),
    ],
)
def test_frames_are_chosen(film: Path, choice: Choice, numbers: list[int]) -> None:
    video = open_video(film, choice=choice)
    assert blue(video) == numbers
    assert times(video) == [round(n / 12.5, 4) for n in numbers]
    assert video.length is not None
    assert abs(video.length - len(numbers)) <= 1
    assert video.fps == 12.5 / choice.stride
    assert video.notes == [], "nothing is missing"


def test_frames_of_pictures_are_chosen(folder: Path) -> None:
    video = open_video(folder, choice=Choice(stride=4, start=0.2, end=1.1))
    assert (video.length, video.fps) == (3, 2.5)
    np.testing.assert_array_equal(list(video), [frames(12)[t] for t in (2, 6, 10)])
    assert times(video) == [0.2, 0.6, 1.0]


def test_a_start_behind_many_key_frames_is_found_by_seeking(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with write_video(path, 25, SIZE) as write:
        for t in range(600):
            write(frames(10)[t // 60])
    decoded = [0]
    video = open_video(path, choice=Choice(start=21.6))
    inner = video._decode

    def counting():  # type: ignore[no-untyped-def]
        for item in inner():
            decoded[0] += 1
            yield item

    video._decode = counting  # type: ignore[method-assign]
    assert times(video) == [round(t / 25, 4) for t in range(540, 600)]
    assert blue(video)[0] == 9
    assert decoded[0] < 2 * 360, "not from the beginning"


def test_frames_are_shrunk_and_never_enlarged(film: Path, folder: Path) -> None:
    for source in (film, folder):
        video = open_video(source, choice=Choice(max_size=33))
        assert video.size == (25, 33)
        assert {image.shape for image in video} == {(25, 33, 3)}
        assert open_video(source, choice=Choice(max_size=640)).size == SIZE
    picture = next(iter(open_video(folder, choice=Choice(max_size=32))))
    expected = frames()[0].reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(picture - expected).max() <= 1, "averaged, not skipped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride is 0; give 1"),
        ({"start": 5, "end": 5}, r"the end \(5 s\) is not after the start \(5 s\)"),
        ({"end": 0}, r"the end \(0 s\) is not after the start"),
        ({"max_size": 3}, "max_size is 3; give 16"),
    ],
)
def test_impossible_choices(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Choice(**options)


def test_a_start_after_the_end_is_named(film: Path, folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"film\.mp4 takes 0\.8 s and has no frame from 9 s on; give an earlier"
    ):
        open_video(film, choice=Choice(start=9))
    with pytest.raises(UserError, match=r"pictures takes 1\.2 s and has no frame from 1\.2 s on"):
        open_video(folder, choice=Choice(start=1.2))


def test_times_as_people_write_them() -> None:
    assert [seconds(t) for t in (3, "90.5", "1:30", "0:01:30.5", "2:00:00")] == [3, 90.5, 90, 90.5, 7200]
    for wrong in ("-1", "1:2:3:4", "soon", "", "nan", "inf", "1:-2"):
        with pytest.raises(UserError, match="is not a time; give seconds"):
            seconds(wrong)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """30 frames that take up about the same room each."""
    path, random = tmp_path / "noise.mp4", np.random.default_rng(0)
    with write_video(path, 10, SIZE) as write:
        for _ in range(30):
            write(random.integers(0, 255, (*SIZE, 3), np.uint8))
    return path


def test_a_video_that_breaks_off_gives_what_it_has_and_says_so(noise: Path) -> None:
    whole, data = list(open_video(noise)), noise.read_bytes()
    noise.write_bytes(data[: len(data) // 2])
    video = open_video(noise)
    read = list(video)
    assert 10 < len(read) < 20
    np.testing.assert_array_equal(read[:10], whole[:10])
    assert video.notes == [f"noise.mp4 is damaged or breaks off: {len(read)} frames of 30 could be decoded"]


def test_damage_in_the_middle_is_passed_over_and_said(noise: Path) -> None:
    data = bytearray(noise.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = np.random.default_rng(0).bytes(3000)
    noise.write_bytes(data)
    video = open_video(noise)
    read = list(video)
    assert 15 < len(read) < 30
    assert video.notes == [f"noise.mp4 is damaged or breaks off: {len(read)} frames of 30 could be decoded"]


def test_a_matroska_file_that_breaks_off_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", 10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuvj420p"
        for image in frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    assert open_video(path).length == 10
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = open_video(path)
    assert 0 < len(list(video)) < 8
    assert len(video.notes) == 1


def test_sizes_that_change_within_a_video(tmp_path: Path) -> None:
    """Joined MJPEG pictures are a video; its frames may have any size."""
    path = tmp_path / "v.mjpeg"
    with path.open("wb") as file:
        for size in (SIZE, SIZE, (32, 64)):
            Pillow.fromarray(frames(1, size)[0]).save(file, "JPEG")
    with pytest.raises(UserError, match=r"v\.mjpeg: frame 2 is 64x32, the first was 64x48"):
        list(open_video(path))


def check_error(source: Path | str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        list(open_video(source))
    assert "\n" not in str(caught.value)
    assert str(source).split("*")[0] in str(caught.value)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    check_error(tmp_path / "missing.mp4", "does not exist")
    check_error(tmp_path / "*.png", "no picture matches")
    check_error(tmp_path, "has no pictures")
    (tmp_path / "empty.mp4").touch()
    check_error(tmp_path / "empty.mp4", "is empty")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    check_error(tmp_path / "noise.mp4", "is not a video")
    (tmp_path / "notes.txt").write_text("not a film\n" * 50)
    check_error(tmp_path / "notes.txt", "has no video in it")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", 8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    check_error(tmp_path / "sound.wav", "has no video in it")


def test_a_video_without_its_index_is_named(film: Path) -> None:
    data = film.read_bytes()
    film.write_bytes(data[: data.index(b"moov") - 4])
    check_error(film, "is not a video that can be read")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 1e6])
def test_impossible_rates(film: Path, fps: float) -> None:
    with pytest.raises(UserError, match="frames per second"):
        open_video(film, fps)


def test_broken_pictures_are_named(folder: Path) -> None:
    (folder / "f5.png").write_bytes((folder / "f5.png").read_bytes()[:-60])
    with pytest.raises(UserError, match=r"f5\.png is broken"):
        list(open_video(folder))
    (folder / "f5.png").write_text("no picture")
    with pytest.raises(UserError, match=r"f5\.png is not a picture"):
        open_video(folder)


def test_pictures_of_different_sizes_are_named_before_anything_is_read(folder: Path) -> None:
    Pillow.fromarray(frames(1, (48, 60))[0]).save(folder / "f11.png")
    with pytest.raises(UserError, match=r"f11\.png is 60x48, f0\.png is 64x48"):
        open_video(folder)
