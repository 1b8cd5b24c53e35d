"""Explanations of several models of one process."""

import gc
import weakref

from engine.test_explainer import RED, in_background
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.engine.explainer import Explainer
from toy import ToyModel, toy_model
from waiting import wait_until


def test_explanations_of_all_models_are_computed_one_at_a_time(make_classifier):
    running, most = [], []

    class Counting(ToyModel):
        def explain(self, *arguments):
            running.append(1)
            most.append(len(running))
            answer = super().explain(*arguments)
            running.pop()
            return answer

    models = [make_classifier(Counting(), max_explanations=4) for _ in range(2)]
    explainer = Explainer(models[0].process, models[0].settings)
    asked = [in_background(explainer.explain, model, picture()) for model in models * 2]
    for thread, outcome in asked:
        thread.join(10)
        assert outcome[0].prediction.class_index == RED
    assert most == [1] * 4
    explainer.close()


def test_a_closed_model_is_freed_after_its_explanation(classifier):
    explainer = Explainer(classifier.process, classifier.settings)
    other = Classifier(classifier.settings, lambda *_: toy_model(), classifier.process)
    other.start()
    other.loading.result(10)
    explainer.explain(other, picture())
    other.close()
    freed = weakref.ref(other.require_model().scorer)
    del other
    wait_until(lambda: gc.collect() < 0 or freed() is None)
    explainer.explain(classifier, picture())
    explainer.close()
