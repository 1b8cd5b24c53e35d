"""Which parts of a form, and which values in JSON, are images."""

import base64
import json

import pytest

from pictures import picture
from predictor.errors import BadRequest, RequestError, TooLarge
from predictor.web import choosing
from predictor.web.choosing import Fields, choose_json, choose_parts
from predictor.web.forms import Part

RED, BLUE, BROKEN = picture("red"), picture("blue"), picture()[:50]
FIELDS = Fields(("file", "image", "images"), '{"image": "<base64>"}', parameters=("top_k",))


def b64(data):
    return base64.b64encode(data).decode()


def file(name, value=RED, filename="a.png", kind="image/png"):
    return Part(name, filename, value, kind)


def text(name, value=""):
    return Part(name, None, value.encode())


def data_url(data=RED):
    return f"data:image/png;base64,{b64(data)}"


UNFILLED = Part("file", "", b"", "application/octet-stream")
FILEPOND = json.dumps({"id": "x", "name": "a.png", "metadata": {}, "data": b64(RED)})
ONE = {
    "a file": [file("file")],
    "an unfilled second input": [file("file"), UNFILLED],
    "an unfilled first input": [UNFILLED, file("file")],
    "an unfilled input of another name": [file("file"), Part("mask", "", b"", "x/y")],
    "an empty text": [file("file"), text("image")],
    "blanks": [file("file"), text("image", " \r\n")],
    "FilePond's metadata": [text("filepond", "{}"), file("filepond")],
    "metadata under our name": [text("file", '{"resize": {"width": 9}}'), file("file")],
    "JavaScript's null": [text("file", "null"), text("image", "undefined"), file("file")],
    "JSON as a file": [file("file", b'{"user": 7}', "blob", "application/json"), file("file")],
    "the photo's name": [text("image", "photo.jpg"), file("file")],
    "a path under the same name": [text("file", r"C:\fakepath\a.png"), file("file")],
    "a caption that could be base64": [text("image", "vacation"), file("photo")],
    "an object that was not encoded": [text("file", "[object File]"), file("file")],
    "FilePond's encoded file": [text("filepond", FILEPOND)],
    "Dropzone": [text("dzuuid", "00-1"), text("dzchunkindex", "0"), file("file")],
    "Uppy": [text("relativePath", "null"), text("name", "a.png"), file("files[]")],
    "no filename": [file("file", filename=None)],
    "no filename and another name": [file("upload", filename=None)],
    "no filename and octets": [file("file", filename=None, kind="application/octet-stream")],
    "no filename and no type": [file("x", filename=None, kind="")],
    "no name": [file("")],
    "called text": [file("file", kind="text/plain")],
    "another name": [file("photo")],
    "brackets": [file("file[]")],
    "a number in brackets": [file("file[0]")],
    "another name beside text": [text("caption", "a cat"), file("upload"), text("user", "7")],
    "another name beside a text file": [file("notes", b"hello", "a.txt", ""), file("upload")],
    "base64": [text("file", b64(RED))],
    "base64 under another name": [text("picture", b64(RED))],
    "a data URL": [text("canvas", data_url())],
    "a file that holds a data URL": [file("file", data_url().encode(), "a.txt", "text/plain")],
    "a file of another name in base64": [file("x", b64(RED).encode(), "a.b64", "")],
    "a blob in base64": [file("file", b64(RED).encode(), "blob", "image/png")],
}


@pytest.mark.parametrize("case", ONE)
def test_form_with_one_image_gets_one_answer(case):
    chosen = choose_parts(ONE[case], 9, FIELDS)
    assert (chosen.images, chosen.shape) == ([RED], "one")


SEVERAL = {
    "one name": [file("file"), file("file", BLUE)],
    "two names": [file("image"), file("file", BLUE)],
    "numbers in brackets": [file("file[0]"), file("file[1]", BLUE)],
    "other names": [file("photo1"), text("user", "7"), file("photo2", BLUE)],
    "our name and another": [file("file"), file("second", BLUE)],
    "a file and base64": [file("file"), text("image", b64(BLUE))],
    "base64 first": [text("image", data_url()), file("file", BLUE)],
}


@pytest.mark.parametrize("case", SEVERAL)
def test_all_images_of_a_form_are_chosen_in_order(case):
    chosen = choose_parts(SEVERAL[case], 9, FIELDS)
    assert (chosen.images, chosen.shape) == ([RED, BLUE], "list")


def test_chosen_images_keep_their_file_names():
    form = [text("x"), file("a", filename="1.png"), text("image", b64(RED)), file("file")]
    assert choose_parts(form, 9, FIELDS).filenames == ["1.png", None, "a.png"]


@pytest.mark.parametrize(
    "second",
    [
        file("file", b"text", "a.txt", "text/plain"),
        file("file", b"", "empty.png"),
        file("file", BROKEN),
        file("scan", b"....ftypheic", "a.heic", "image/heic"),
    ],
)
def test_file_that_is_no_image_beside_a_photo_keeps_its_place(second):
    assert choose_parts([file("file"), second], 9, FIELDS).images == [RED, second.value]


def test_long_text_under_an_images_name_beside_a_photo_is_an_error_in_its_place():
    images = choose_parts([file("file"), text("file", "!" * 1001)], 9, FIELDS).images
    assert images[0] == RED
    assert "not base64" in str(images[1])


def test_texts_of_which_one_is_an_image_keep_their_places():
    images = choose_parts([text("image", "!"), text("image", b64(RED))], 9, FIELDS).images
    assert isinstance(images[0], RequestError)
    assert images[1] == RED


@pytest.mark.parametrize("filename", ["notes.pdf", None])
def test_document_of_another_name_is_the_image_only_if_it_is_alone(filename):
    document = Part("notes", filename, b"%PDF-1.7", "")
    assert choose_parts([document, file("file")], 9, FIELDS).images == [RED]
    assert choose_parts([document], 9, FIELDS).images == [document.value]
    expected = [document._replace(name="file"), file("image")]
    assert choose_parts(expected, 9, FIELDS).images == [document.value, RED]


def test_only_file_is_the_image_whatever_it_holds():
    for part in (
        file("x", b"text", "a.txt", ""),
        Part("x", None, b"?", "application/octet-stream"),
    ):
        assert choose_parts([text("y", "z"), part], 9, FIELDS).images == [part.value]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ([], "no field"),
        ([text("top_k", "2")], "the form has 'top_k' (parameter)."),
        ([text("user", "7"), text("file_name", "a.png")], "'user' (text), 'file_name' (text)"),
        ([text("meta", "{}"), Part("photo", "", b"")], "'meta' (metadata), 'photo' (empty)"),
        ([text(f"f{n}", "x") for n in range(9)], "'f4' (text), …"),
        ([text("x" * 100, "y")], f"'{'x' * 30}' (text)"),
    ],
)
def test_form_without_an_image_is_400_and_lists_what_it_has(form, words):
    with pytest.raises(BadRequest) as error:
        choose_parts(form, 9, FIELDS)
    assert words in str(error.value)
    assert "-F file=@photo.jpg" in str(error.value)


def test_too_many_images_in_a_form_are_413_before_decoding(monkeypatch):
    monkeypatch.setattr("predictor.web.choosing.from_base64", lambda _: pytest.fail("decoded"))
    with pytest.raises(TooLarge, match="10 images"):
        choose_parts([text("file", "!")] * 10, 9, FIELDS)


def test_json_parts_of_a_form_share_one_limit(monkeypatch):
    parsed, parse = [], choosing.parse_json
    monkeypatch.setattr(choosing, "parse_json", lambda body: parsed.append(body) or parse(body))
    some = Part("meta", None, b'{"a": [%s0]}' % (b"0," * 6_000), "")
    form = [some] * 9 + [text("other", FILEPOND), file("file")]
    assert choose_parts(form, 8, FIELDS).images == [RED]
    assert len(parsed) == 3


@pytest.mark.parametrize("others", [["x" * 30] * 1100, [["x" * 30] * 300] * 4], ids=["", "lists"])
def test_image_is_looked_for_among_a_thousand_texts(monkeypatch, others):
    """Each takes 30 µs."""
    looked, look = [], choosing.holds_an_image
    monkeypatch.setattr(choosing, "holds_an_image", lambda text: looked.append(1) or look(text))
    found = choose_json({"a": others[:3], "photo": b64(RED)}, 8, FIELDS)
    assert found.images == [RED]
    with pytest.raises(BadRequest, match="no image"):
        choose_json({"a": others, "photo": b64(RED)}, 8, FIELDS)
    parts = [Part("meta", None, json.dumps({"a": others}).encode())] * 5
    assert choose_parts([*parts, file("file")], 8, FIELDS).images == [RED]
    assert len(looked) < 3200  # of three requests


def test_parameter_is_no_image_and_may_be_empty():
    chosen = choose_parts([file("file"), text("top_k", "3 "), text("topk", "4")], 9, FIELDS)
    assert (chosen.images, chosen.given) == ([RED], [("top_k", "3")])
    assert choose_parts([file("file"), text("top_k")], 9, FIELDS).given == []


JSON = {
    "image": {"image": b64(RED)},
    "a usual name": {"b64": b64(RED)},
    "another name": {"photo": data_url()},
    "another name beside others": {
        "img": b64(RED),
        "user": 7,
        "name": "a.png",
        "meta": {"data": 1},
    },
    "an object": {"image": {"data": b64(RED), "type": "image/png"}},
    "another object": {"photo": {"src": data_url(), "width": 9}},
    "OpenAI's image_url": {"type": "image_url", "image_url": {"url": data_url()}},
    "Hugging Face's inputs": {"inputs": b64(RED), "parameters": {"top_k": 2}},
    "three objects": {"request": {"input": {"image": b64(RED)}}},
    "a string": data_url(),
    "Python's bytes": {"image": f"b'{b64(RED)}'"},
    "quotes": {"image": f'"{b64(RED)}"'},
    "a byte order mark": {"image": f"\ufeff{b64(RED)}"},
    "a prefix without data:": {"image": f"image/png;base64,{b64(RED)}"},
    "base64 as a prefix": {"image": f"base64,{b64(RED)}"},
    "an image beside a text called data": {"image": b64(RED), "data": "a cat"},
    "metadata with usual names": {"photo": b64(RED), "meta": {"data": 1, "body": "x"}},
    "Google's requests": {"requests": [{"image": {"content": b64(RED)}, "features": [{"n": 5}]}]},
    "OpenAI's messages": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "?"},
                    {"type": "image_url", "image_url": {"url": data_url()}},
                ],
            }
        ]
    },
    "Anthropic's source": {
        "messages": [
            {"content": [{"type": "image", "source": {"type": "base64", "data": b64(RED)}}]}
        ]
    },
    "MLflow's dataframe": {"dataframe_split": {"columns": ["image"], "data": [[b64(RED)]]}},
    "Azure's input_data": {"input_data": {"index": [0], "data": [b64(RED)]}},
    "Angular's data URL": {"file": f"data:image/png;name=a%20b.png;base64,{b64(RED)}"},
}


@pytest.mark.parametrize("case", JSON)
def test_json_with_one_image_gets_one_answer(case):
    chosen = choose_json(JSON[case], 9, FIELDS)
    assert (chosen.images, chosen.shape) == ([RED], "one")


LISTS = {
    "images": {"images": [b64(RED), b64(BLUE)]},
    "instances": {"instances": [{"b64": b64(RED)}, {"photo": b64(BLUE)}]},
    "Gradio's data": {"data": [data_url(), data_url(BLUE)]},
    "Gradio's files": {"data": [{"name": "a.png", "data": data_url()}, {"data": data_url(BLUE)}]},
    "a list": [b64(RED), {"image": {"url": data_url(BLUE)}}],
    "other names": {"left": b64(RED), "right": data_url(BLUE), "id": "x"},
}


@pytest.mark.parametrize("case", LISTS)
def test_json_list_gets_a_list_in_order(case):
    chosen = choose_json(LISTS[case], 9, FIELDS)
    assert chosen.images == [RED, BLUE]
    assert chosen.shape == ("instances" if case == "instances" else "list")


@pytest.mark.parametrize(
    "content",
    [{}, [], {"img": "x"}, {"images": []}, {"images": "x"}, {"inputs": 7}, {"a": {"data": "x"}},
     {"image": {}}, {"image": "", "images": []}, {"image": b64(RED), "data": b64(RED)},
     {"image": [None, 7]}, {"image": "x", "data": 7},
     {"a": {"b": {"c": {"d": {"e": {"f": {"g": data_url()}}}}}}}],
)  # fmt: skip
def test_json_that_is_not_clear_is_400(content):
    with pytest.raises(BadRequest, match='"image"|exactly one of the names b64'):
        choose_json(content, 9, FIELDS)


@pytest.mark.parametrize("content", [{"image": None}, {"image": 7}, {"image": "!"}, None, 7, "!"])
def test_json_image_that_is_not_base64_is_an_error_in_its_place(content):
    (image,) = choose_json(content, 9, FIELDS).images
    assert isinstance(image, RequestError)


def test_parameters_of_json_are_members_or_in_an_object():
    content = {"image": b64(RED), "top_k": 2, "parameters": {"top_k": 2.0, "other": 1}}
    assert choose_json(content, 9, FIELDS).given == [("top_k", 2), ("top_k", 2.0)]


@pytest.mark.parametrize("name", ["topk", "top-k", "topK", "k", "TOP_K", "top_n"])
def test_json_name_that_resembles_a_parameter_is_400(name):
    for content in ({name: 5}, {"parameters": {name: 5}}):
        with pytest.raises(BadRequest, match=f"no parameter '{name}'. Did you mean top_k"):
            choose_json({"image": b64(RED)} | content, 9, FIELDS)


def test_targets_are_read_from_instances():
    targets = choose_json([b64(RED), {"b64": b64(RED), "target": 2}, {"target": []}], 9, FIELDS)
    assert targets.targets == [None, 2, []]
