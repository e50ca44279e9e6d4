import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tutorial_lib import pictures
from tutorial_lib.pictures import image_credit, list_images, load_image, to_rgb


def grey(value=100, size=(8, 6)):
    return Image.new("L", size, value)


@pytest.mark.parametrize("name", list_images())
def test_every_bundled_photograph_opens_without_a_download(name):
    picture = load_image(name)
    assert picture.mode == "RGB" and min(picture.size) >= 300


@pytest.mark.parametrize("name", list_images())
def test_every_bundled_photograph_has_a_credit_with_its_terms(name):
    terms = ("CC0", "public domain", "no known copyright restrictions", "no licence stated")
    assert any(image_credit(name).split("; ")[-1].startswith(t) for t in terms)


@pytest.mark.slow
def test_bundled_pixels_are_scikit_images_own():
    from skimage import data as theirs

    assert (np.asarray(load_image("chelsea")) == theirs.chelsea()).all()
    assert (np.asarray(load_image("camera"))[..., 1] == theirs.camera()).all()


def test_image_credit_of_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"name: 'dog' given.*chelsea"):
        image_credit("dog")


def test_a_string_and_a_path_open_the_same_file(tmp_path):
    grey().save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png") == load_image(str(tmp_path / "a.png"))


def test_a_missing_file_names_itself_and_the_bundled_photographs():
    with pytest.raises(FileNotFoundError, match=r"name: no file 'nowhere\.png'.*astronaut"):
        load_image("nowhere.png")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        load_image(tmp_path)


def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ValueError, match="is not a file"):
            load_image(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no room
    with pytest.raises(ValueError, match=r"huge\.tif' is too large: 1099511627776 bytes, at most"):
        load_image(tmp_path / "huge.tif")


@pytest.mark.parametrize("name", [None, 3, np.zeros((4, 4, 3))])
def test_a_name_that_is_no_path_is_a_type_error(name):
    with pytest.raises(TypeError, match="name: "):
        load_image(name)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match=r"notes\.jpg.*not a picture"):
        load_image(tmp_path / "notes.jpg")


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png"):
        load_image(tmp_path / "empty.png")


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "tif", "bmp", "webp"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_is_an_error_and_no_half_grey_picture(tmp_path, kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{kind}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"name: .*cut\."):
        load_image(path)


def test_a_damaged_png_chunk_is_an_error(tmp_path):
    path = tmp_path / "bad.png"
    grey().save(path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_image(path)


def test_grey_is_repeated_for_the_three_colours(tmp_path):
    grey(77).save(tmp_path / "g.png")
    assert load_image(tmp_path / "g.png").getpixel((0, 0)) == (77, 77, 77)


def test_black_and_white_bits_become_0_and_255():
    assert to_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 128)).save(tmp_path / "t.png")
    a = 128 / 255
    expected = [a * 200 + (1 - a) * 255, (1 - a) * 255, (1 - a) * 255]
    assert np.allclose(load_image(tmp_path / "t.png").getpixel((0, 0)), expected, atol=1)


def test_hidden_colour_of_fully_transparent_pixels_does_not_come_out():
    assert to_rgb(Image.new("RGBA", (2, 2), (10, 20, 30, 0))).getpixel((1, 1)) == (255, 255, 255)


def test_grey_with_alpha_is_laid_on_white():
    assert to_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_a_palettes_transparent_entry_is_laid_on_white(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "p.png", transparency=1)
    loaded = load_image(tmp_path / "p.png")
    assert loaded.getpixel((0, 0)) == (255, 0, 0) and loaded.getpixel((2, 2)) == (255, 255, 255)


def test_an_rgb_pngs_transparent_colour_is_laid_on_white(tmp_path):
    picture = Image.new("RGB", (4, 4), (0, 0, 255))
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(tmp_path / "k.png", transparency=(0, 0, 255))
    loaded = load_image(tmp_path / "k.png")
    assert loaded.getpixel((0, 0)) == (255, 0, 0) and loaded.getpixel((2, 2)) == (255, 255, 255)


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red, green, blue = load_image(tmp_path / "c.jpg").getpixel((8, 8))
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, kind):
    values = np.array([[0, 257, 257 * 100, 40000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{kind}")
    loaded = np.asarray(load_image(tmp_path / f"deep.{kind}"))
    assert loaded[0, :, 0].tolist() == [0, 1, 100, round(40000 / 257), 255]


def test_a_16_bit_pgm_is_scaled(tmp_path):
    raw = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257 * 9, 65535)
    (tmp_path / "deep.pgm").write_bytes(raw)
    assert np.asarray(load_image(tmp_path / "deep.pgm"))[0, :, 1].tolist() == [0, 9, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_grey_has_no_known_range_and_is_refused(tmp_path, mode):
    Image.new(mode, (4, 4), 300).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=rf"wide\.tif.*mode '{mode}'"):
        load_image(tmp_path / "wide.tif")


def test_a_cameras_orientation_is_applied_once(tmp_path):
    picture = Image.new("RGB", (30, 20), "black")
    picture.paste("red", (0, 0, 30, 10))  # red on top in the file; turned right by the tag
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    loaded = load_image(tmp_path / "turned.jpg")
    assert loaded.size == (20, 30)
    assert loaded.getpixel((17, 15))[0] > 200 and loaded.getpixel((2, 15))[0] < 50
    assert to_rgb(loaded) == loaded
    with Image.open(tmp_path / "turned.jpg") as opened:
        assert to_rgb(opened) == loaded


def test_one_pixel_is_a_picture(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "one.png")
    assert load_image(tmp_path / "one.png").getpixel((0, 0)) == (1, 2, 3)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (10_000, 60_000):  # Pillow warns of the first and refuses the second
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        raw = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(raw)
        with pytest.raises(ValueError, match=r"bomb\.png.*too large"):
            load_image(tmp_path / "bomb.png")


def test_the_limit_holds_where_pillows_own_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 47)
    grey().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="too large: 8 x 6 pixels, at most 47"):
        load_image(tmp_path / "a.png")


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_to_rgb_returns_a_new_picture_and_leaves_its_argument():
    picture = Image.new("RGB", (2, 2), "red")
    to_rgb(picture).putpixel((0, 0), (0, 0, 0))
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_to_rgb_refuses_arrays_and_pictures_without_pixels():
    with pytest.raises(TypeError, match="picture: ndarray"):
        to_rgb(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"picture: size \(0, 4\)"):
        to_rgb(Image.new("RGB", (0, 4)))
