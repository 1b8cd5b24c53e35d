"""Parameters of a prediction: in the query, in a form and in JSON."""

import pytest

from pictures import picture
from uploads import RED, b64, file


@pytest.mark.parametrize("top_k", ["0", "-1", "abc", "", "1.5", "1e3", "1_0", "\u0665", "9" * 99])
def test_invalid_top_k_is_400(client, top_k):
    response = client.post(f"/predict?top_k={top_k}", data={"file": file(picture())})
    assert response.status_code == 400
    assert "top_k" in response.json["detail"]


@pytest.mark.parametrize("top_k", [4, 10**9, 10**39])
def test_top_k_above_the_number_of_classes_answers_all(client, top_k):
    for place in ("query", "form", "JSON"):
        request_, query = PLACES[place]("top_k", top_k)
        response = client.post(f"/predict{query}", **request_)
        assert len(response.json["predictions"]) == 3


def test_number_of_too_many_digits_is_refused_by_their_count(client):
    for place in ("query", "form", "JSON"):
        request_, query = PLACES[place]("top_k", 10**40)
        response = client.post(f"/predict{query}", **request_)
        assert response.status_code == 400
        assert "of at most 40 digits" in response.json["detail"]


PLACES = {
    "query": lambda name, value: ({"data": picture()}, f"?{name}={value}"),
    "form": lambda name, value: ({"data": {"file": file(picture()), name: value}}, ""),
    "form after base64": lambda name, value: ({"data": {"image": b64(picture()), name: value}}, ""),
    "JSON": lambda name, value: ({"json": {"image": b64(picture()), name: value}}, ""),
    "JSON's parameters": lambda name, value: (
        {"json": {"image": b64(picture()), "parameters": {name: value}}}, ""),
    "all": lambda name, value: (
        {"json": {"image": b64(picture()), name: value, "parameters": {name: value}}},
        f"?{name}={value}&{name}={value}"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_parameter_has_the_same_effect_everywhere(client, place):
    request_, query = PLACES[place]("top_k", "2")
    assert len(client.post(f"/predict{query}", **request_).json["predictions"]) == 2
    request_, query = PLACES[place]("top_k", "2")
    assert len(client.post(f"/predictions/toy{query}", **request_).json) == 2
    request_, query = PLACES[place]("class_index", "2")
    accept = {"Accept": "application/json"}
    answer = client.post(f"/explain{query}", headers=accept, **request_)
    assert answer.json["class_index"] == 2
    request_, query = PLACES[place]("format", "json")
    assert client.post(f"/explain{query}", **request_).json["class_index"] == 0


@pytest.mark.parametrize("place", PLACES)
def test_invalid_parameter_is_400_everywhere(client, place):
    for path, name in (("/predict", "top_k"), ("/explain", "class_index"), ("/explain", "format")):
        request_, query = PLACES[place](name, "many")
        response = client.post(path + query, **request_)
        assert response.status_code == 400
        assert f"{name} is 'many'" in response.json["detail"]


@pytest.mark.parametrize("value", [True, 1.5, -1, [5], {"a": 1}, "5 "])
def test_top_k_in_json_that_is_no_whole_number_is_400(client, value):
    response = client.post("/predict", json={"image": b64(picture()), "top_k": value})
    assert (response.status_code, "top_k is" in response.json["detail"]) == (400, True)


def test_null_is_no_parameter(client):
    assert client.post("/predict", json={"image": b64(picture()), "top_k": None}).json == RED


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["topk", "top-k", "topK", "k"])
def test_unknown_parameter_that_resembles_one_is_named_except_in_a_form(client, place, name):
    request_, query = PLACES[place](name, "2")
    response = client.post(f"/predict{query}", **request_)
    if place.startswith("form"):
        assert response.json == RED
    else:
        assert response.status_code == 400
        assert f"no parameter '{name}'. Did you mean top_k?" in response.json["detail"]


def test_other_names_in_the_query_are_ignored(client):
    assert client.post("/predict?user=7&class_index=x", data=picture()).json == RED


def test_query_of_more_than_100_names_is_400(client):
    """The event loop reads it."""
    assert client.post(f"/predict?top_k=1{'&a' * 99}", data=picture()).status_code == 200
    response = client.post(f"/predict?top_k=1{'&a' * 100}", data=picture())
    assert response.status_code == 400
    assert "more than 100 parameters" in response.json["detail"]


def test_different_values_in_query_and_form_are_400(client):
    response = client.post("/predict?top_k=1", data={"file": file(picture()), "top_k": "2"})
    assert response.status_code == 400
    assert "top_k is given 2 times, as '1' and '2'" in response.json["detail"]


@pytest.mark.parametrize("path", ["/predict?top_k=1&top_k=2", "/explain?format=png&format=json"])
def test_parameter_given_twice_is_400(client, path):
    response = client.post(path, data={"file": file(picture())})
    assert response.status_code == 400
    assert "2 times" in response.json["detail"]
