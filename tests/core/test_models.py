"""Every parameter of both seed pages, at its edges and on both sides of them."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from wavespeed_qwen_async import Edit, InvalidJobError, LargeSizeWarning, Lora, Size, TextToImage
from wavespeed_qwen_async.models import as_job

URL = "https://example.com/a.png"
LORA_MODELS = ("text-to-image-lora", "text-to-image-2512-lora")


def field_of(error: ValidationError) -> tuple[object, ...]:
    return error.errors()[0]["loc"]


def refused(**job) -> InvalidJobError:
    with pytest.raises(InvalidJobError) as caught:
        as_job(job)
    assert caught.value.billed == "no"
    return caught.value


# --- prompt -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["x", "two\nlines", "一只红色的狐狸", "🦊", "x" * 100_000])
def test_prompts_that_go(prompt):
    assert TextToImage(prompt=prompt).prompt == prompt


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "half \ud83e", None, 7, ["x"]])
def test_prompts_that_do_not(prompt):
    assert refused(prompt=prompt).field == "prompt"


def test_a_job_without_a_prompt_says_so():
    assert "prompt" in str(refused(seed=1))


# --- size: 256 to 1536 each -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("256*256", "256*256"),
        ("1024x768", "1024*768"),
        (" 512 X 512 ", "512*512"),
        ("512×640", "512*640"),  # noqa: RUF001 - people paste it
        ((256, 1024), "256*1024"),
        ([640, 480], "640*480"),
        (Size(width=300, height=301), "300*301"),
        ({"width": 256, "height": 256}, "256*256"),
    ],
)
def test_sizes_that_go(given, sent):
    assert str(TextToImage(prompt="x", size=given).size) == sent


@pytest.mark.parametrize("size", ["1536*1536", (1536, 256), (256, 1536), "1025*1024"])
def test_large_sizes_go_for_both_and_warn_for_text_to_image(size):
    with pytest.warns(LargeSizeWarning, match="1024 x 1024"):
        TextToImage(prompt="x", size=size)
    assert Edit(prompt="x", image=URL, size=size).size is not None


def test_the_largest_size_of_the_prose_does_not_warn():
    assert TextToImage(prompt="x", size="1024*1024").size == Size(width=1024, height=1024)


@pytest.mark.parametrize(
    ("size", "field"),
    [
        ("255*256", "size.width"),
        ("256*255", "size.height"),
        ("1537*256", "size.width"),
        ("256*1537", "size.height"),
        ((0, 256), "size.width"),
        ((-256, 256), "size.width"),
        ((True, 256), "size.width"),
        ((256.5, 256), "size.width"),
        ("1024", "size"),
        ("1024*", "size"),
        ("a*b", "size"),
        ("", "size"),
        ((1, 2, 3), "size"),
        (1024, "size"),
        ({"width": 256}, "size.height"),
    ],
)
@pytest.mark.parametrize("kind", [{}, {"image": URL}])
def test_sizes_that_do_not(size, field, kind):
    error = refused(prompt="x", size=size, **kind)
    assert error.field == field
    assert "size" in str(error)


# --- loras: at most 3, scale 0.0 to 4.0 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "path", "scale"),
    [
        ("owner/name", "owner/name", 1.0),
        ("owner/name:0.8", "owner/name", 0.8),
        ("owner/name:0", "owner/name", 0.0),
        ("owner/name:4.0", "owner/name", 4.0),
        ("Owner_1/name-2.5", "Owner_1/name-2.5", 1.0),
        ("https://h.com/x.safetensors", "https://h.com/x.safetensors", 1.0),
        ("https://h.com/x.safetensors:0.5", "https://h.com/x.safetensors", 0.5),
        ("https://h.com:8443/x.safetensors", "https://h.com:8443/x.safetensors", 1.0),
        ("https://h.com:8443/x.safetensors:2", "https://h.com:8443/x.safetensors", 2.0),
        ("https://h.com/x.safetensors?download=true", "https://h.com/x.safetensors?download=true", 1.0),
        ("https://civitai.com/api/download/models/12?type=Model", None, 1.0),
        (("https://h.com/x.safetensors?a=b:1", 0.3), "https://h.com/x.safetensors?a=b:1", 0.3),
        (["owner/name", 0.1], "owner/name", 0.1),
        ({"path": "owner/name"}, "owner/name", 1.0),
        ({"path": "owner/name", "scale": 4}, "owner/name", 4.0),
        (Lora(path="owner/name", scale=0.7), "owner/name", 0.7),
    ],
)
def test_loras_that_go(given, path, scale):
    (lora,) = TextToImage(prompt="x", loras=[given]).loras
    assert lora == Lora(path=path or given, scale=scale)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("owner/name:4.01", "loras[0].scale"),
        ("owner/name:-0.1", "loras[0].scale"),
        (("owner/name", float("nan")), "loras[0].scale"),
        (("owner/name", True), "loras[0].scale"),
        (("owner/name", "strong"), "loras[0].scale"),
        ("name", "loras[0].path"),
        ("a/b/c", "loras[0].path"),
        ("", "loras[0].path"),
        ("owner/name:strong", "loras[0].path"),
        ("ftp://h.com/x.safetensors", "loras[0].path"),
        ("https://h.com/x.bin", "loras[0].path"),
        ("https://h.com:80", "loras[0].path"),
        ("https:///x.safetensors", "loras[0].path"),
        ("https://h.com/a b.safetensors", "loras[0].path"),
        ("https://h.com/x.safetensors?download=true:0.5", "loras[0]"),
        (("owner/name", 1, 2), "loras[0]"),
        (7, "loras[0]"),
        ({"scale": 1.0}, "loras[0].path"),
        ({"path": "owner/name", "weight": 1.0}, "loras[0]"),
    ],
)
def test_loras_that_do_not(given, field):
    assert refused(prompt="x", loras=[given]).field == field


@pytest.mark.parametrize("count", [0, 1, 3])
def test_up_to_three_loras_go(count):
    assert len(TextToImage(prompt="x", loras=["o/n"] * count).loras) == count


def test_four_loras_do_not():
    error = refused(prompt="x", loras=["o/n"] * 4)
    assert error.field == "loras"
    assert "4 LoRAs given, at most 3" in str(error)


@pytest.mark.parametrize("loras", ["o/n", {"path": "o/n"}, Lora(path="o/n")])
def test_one_lora_outside_a_list_is_told_to_go_into_one(loras):
    assert "[...]" in str(refused(prompt="x", loras=loras))


# --- seed: -1 to 2147483647 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [-1, 0, 1, 2**31 - 1, "42"])
def test_seeds_that_go(seed):
    assert TextToImage(prompt="x", seed=seed).seed == int(seed)


@pytest.mark.parametrize("seed", [-2, 2**31, 1.5, "x", True])
def test_seeds_that_do_not(seed):
    assert refused(prompt="x", seed=seed).field == "seed"


def test_a_seed_left_out_is_drawn_once_and_given_ones_stay():
    job = TextToImage(prompt="x").seeded(random.Random(1))
    assert 0 <= job.seed <= 2**31 - 1
    assert job.seeded(random.Random(2)) is job
    assert TextToImage(prompt="x", seed=-1).seeded(random.Random(1)).seed == -1
    assert TextToImage(prompt="x").seeded(random.Random(1)).seed == job.seed


def test_what_was_given_of_a_job_is_told_and_no_caller_can_change_it():
    first, second = (TextToImage(prompt="x").seeded(random.Random(1)) for _ in range(2))
    first.model_fields_set.add("size")
    assert first.model_fields_set == second.model_fields_set == {"prompt", "seed"}
    assert first.model_dump(exclude_unset=True) == {"prompt": "x", "seed": first.seed}
    assert first.model_copy(update={"size": None}).model_fields_set == {"prompt", "seed", "size"}
    assert second.model_fields_set == {"prompt", "seed"}
    assert pickle.loads(pickle.dumps(first)) == first == second


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_formats_that_go(output_format):
    assert TextToImage(prompt="x", output_format=output_format).output_format == output_format


@pytest.mark.parametrize("output_format", ["jpg", "gif", "PNG", "", 1])
def test_formats_that_do_not(output_format):
    assert refused(prompt="x", output_format=output_format).field == "output_format"


@pytest.mark.parametrize("name", ["enable_sync_mode", "enable_base64_output"])
def test_the_two_switches(name):
    assert getattr(TextToImage(prompt="x", **{name: True}), name) is True
    assert getattr(TextToImage(prompt="x", **{name: False}), name) is False
    assert refused(prompt="x", **{name: "maybe"}).field == name


@pytest.mark.parametrize(
    ("wrong", "right"), [("promt", "prompt"), ("lora", "loras"), ("outputformat", "output_format"), ("Size", "size")]
)
def test_an_unknown_name_is_refused_with_the_nearest_right_one(wrong, right):
    message = str(refused(prompt="x", **{wrong: "x"}))
    assert repr(wrong) in message
    assert f"did you mean {right!r}?" in message


def test_an_unknown_name_like_none_lists_the_known_ones():
    assert "known are model, prompt" in str(refused(prompt="x", qqqqqqq=1))


@pytest.mark.parametrize("model", ["text-to-image-lora", "text-to-image", "text-to-image-2512-lora"])
def test_text_to_image_models(model):
    assert TextToImage(prompt="x", model=model).model_id == f"wavespeed-ai/qwen-image/{model}"
    assert TextToImage(prompt="x", model=f"wavespeed-ai/qwen-image/{model}").model == model
    assert isinstance(as_job({"prompt": "x", "model": model}), TextToImage)


@pytest.mark.parametrize("model", ["edit-lora", "edit"])
def test_edit_models_of_one_image(model):
    assert Edit(prompt="x", image=URL, model=model).sources == (URL,)
    with pytest.raises(ValidationError, match="takes 'image' instead"):
        Edit(prompt="x", images=[URL], model=model)
    with pytest.raises(ValidationError, match="needs a source image"):
        Edit(prompt="x", model=model)


@pytest.mark.parametrize("model", ["edit-plus", "edit-plus-lora", "edit-2511", "edit-2511-lora"])
def test_edit_models_of_several_images(model):
    for count in (1, 2, 3):
        assert Edit(prompt="x", images=[URL] * count, model=model).sources == (URL,) * count
    for count in (0, 4):
        with pytest.raises(ValidationError, match="takes 1 to 3"):
            Edit(prompt="x", images=[URL] * count, model=model)
    with pytest.raises(ValidationError, match="takes 'images' instead"):
        Edit(prompt="x", image=URL, model=model)


@pytest.mark.parametrize("model", ["edit", "edit-plus", "edit-2511"])
def test_models_without_lora_in_their_name_take_none(model):
    sources = {"image": URL} if model == "edit" else {"images": [URL]}
    with pytest.raises(ValidationError, match="takes no loras"):
        Edit(prompt="x", loras=["o/n"], model=model, **sources)
    assert Edit(prompt="x", loras=[], model=model, **sources).loras == ()


def test_a_model_of_the_other_kind_is_refused():
    with pytest.raises(ValidationError):
        TextToImage(prompt="x", model="edit")
    assert refused(prompt="x", model="flux").field == "model"


@pytest.mark.parametrize("source", [URL, "http://h/a.jpg", "HTTPS://h/a.jpg"])
def test_image_urls_stay_text(source):
    assert Edit(prompt="x", image=source).image == source


def test_image_paths_bytes_and_pictures():
    picture = Image.new("RGB", (8, 8))
    assert Edit(prompt="x", image="a/b.png").image == Path("a/b.png")
    assert Edit(prompt="x", image=Path("b.png")).image == Path("b.png")
    assert Edit(prompt="x", image=b"\x89PNG").image == b"\x89PNG"
    assert Edit(prompt="x", image=bytearray(b"x")).image == b"x"
    assert Edit(prompt="x", image=picture).image is picture


@pytest.mark.parametrize("source", ["", " ", b"", "ftp://h/a.png", "data:image/png;base64,AA", "https://", 7, "a\0b"])
def test_sources_that_do_not_go(source):
    assert refused(prompt="x", image=source).field == "image"


def test_image_bytes_never_show_in_a_repr():
    assert "SECRET" not in repr(Edit(prompt="x", image=b"SECRET" * 1000))


def test_jobs_are_values():
    job = TextToImage(prompt="x", loras=["o/n:0.5"], size="512*512")
    assert pickle.loads(pickle.dumps(job)) == job == TextToImage.model_validate(job.model_dump())
    assert hash(job) == hash(TextToImage(prompt="x", loras=[("o/n", 0.5)], size=(512, 512)))
    with pytest.raises(ValidationError):
        job.prompt = "y"


def test_a_mapping_with_an_image_is_an_edit_and_others_are_no_jobs():
    assert isinstance(as_job({"prompt": "x", "image": URL}), Edit)
    assert isinstance(as_job({"prompt": "x", "images": [URL], "model": "edit-plus"}), Edit)
    assert as_job(job := TextToImage(prompt="x")) is job
    with pytest.raises(InvalidJobError, match="not str"):
        as_job("a red fox")


def test_no_name_is_offered_that_means_something_else():
    """Other services know negative prompts; whoever takes up 'did you mean' must not lose the prompt by it."""
    message = str(refused(prompt="x", negative_prompt="blurry"))
    assert "'negative_prompt'" in message
    assert "known are model, prompt" in message


@pytest.mark.parametrize("job", [{"prompt": "x"}, {"prompt": "x", "image": URL}])
def test_for_an_unknown_model_all_are_named(job):
    with pytest.raises(InvalidJobError, match="'flux'.*text-to-image-lora.*edit-plus-lora") as caught:
        as_job(job | {"model": "flux"})
    assert caught.value.field == "model"


def test_a_long_value_is_shortened_in_the_message():
    assert len(str(refused(prompt="x", size="9" * 1000))) < 300
