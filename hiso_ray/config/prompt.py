"""A user-defined prompt: the columns it is made from, and its answers."""

from __future__ import annotations

import json
from string import Formatter
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from hiso_ray.config.section import Auto, Section, given
from hiso_ray.config.texts import stripped, texts
from hiso_ray.errors import UserError

Answers = Annotated[tuple[str, ...], BeforeValidator(texts)]
Texts = Annotated[Auto | tuple[str, ...], BeforeValidator(stripped)]
OF_CLASSES = {"label_column", "labels", "names"}
OF_TEXT = {"metrics", "ends"}


class PromptConfig(Section):
    """How the task ``prompts`` reads its data; every other task leaves it out."""

    template: str = Field(
        "",
        description="prompts: the text before the answer, with columns in braces, such as "
        "'{review} Overall it was'; a brace that is text is doubled",
    )
    context: str = Field(
        "auto",
        description="prompts: the column that loses its beginning where a prompt is too long; auto "
        "is the template's first",
    )
    answers: Answers = Field(
        (),
        description="prompts, classification: the answer of each class, one token each, "
        "comma-separated or JSON. The space before an answer is part of it: most tokenizers have "
        "' good' and 'good' as different tokens, and after a word the one with the space is right",
    )
    label_column: str = Field("label", description="prompts, classification: column of the labels")
    labels: Texts = Field(
        "auto",
        description="prompts, classification: the label of each class, in the order of answers, "
        "in any case; '|' separates spellings of one class; auto is 0, 1, …",
    )
    names: Texts = Field(
        "auto",
        description="prompts, classification: names of the classes, for tables and pictures; auto "
        "is the answers without their spaces",
    )
    answer_column: str = Field(
        "",
        description="prompts, generation: column of the text to be written, or of a list of "
        "acceptable ones, of which the first is trained on",
    )
    metrics: Texts = Field(
        "auto",
        description="prompts, generation: what is measured, the first is what the task goes by: "
        "f1, exact_match, rouge1, rouge2, rougeL; auto is f1,exact_match",
    )
    ends: Literal["line", "text"] = Field(
        "line",
        description="prompts, generation: an answer ends with its line, or (text) with the model's "
        "end-of-text token, for answers of several lines",
    )
    configuration: str = Field("", description="prompts: configuration of a hub dataset")
    train: str = Field(
        "auto",
        description="prompts: the training split, or the name of its file in task.data; auto is "
        "train",
    )
    evaluation: str = Field(
        "auto",
        description="prompts: the evaluation split, or the name of its file in task.data; auto is "
        "validation, valid, dev or val, or 20 % of a single split",
    )

    @model_validator(mode="after")
    def _complete(self) -> PromptConfig:
        found = given(self)
        if not found:
            return self
        if not self.template:
            raise ValueError(
                f"template is missing beside {', '.join(sorted(found))}: give the text before the "
                "answer, with columns in braces"
            )
        columns = columns_of(self.template)
        if self.context not in ("auto", *columns):
            raise ValueError(
                f"context = {self.context}: the template has no such column; choose one of "
                f"{', '.join(columns)}"
            )
        if bool(self.answers) == bool(self.answer_column):
            both = "both are given" if self.answers else "neither is given"
            raise ValueError(
                f"answers or answer_column: {both}; give answers (one token for each class, "
                "classification), or answer_column (a column of texts to write, generation)"
            )
        unread = (OF_TEXT if self.answers else OF_CLASSES) & found
        if unread:
            of = "answer_column" if self.answers else "answers"
            raise ValueError(f"{', '.join(sorted(unread))} belongs to {of}; leave it out")
        answer = "label_column" if self.answers else "answer_column"
        if getattr(self, answer).split(".")[0] in columns:
            raise ValueError(
                f"{answer} = {getattr(self, answer)} stands in the template too, where the model "
                "would read the answer; take it out there, or name another column"
            )
        if self.answers:
            _check_classes(self)
        return self


def columns_of(template: str) -> tuple[str, ...]:
    """The columns in a template, each once, in order.

    Raises:
        UserError: braces are not balanced or hold no column name, there is no column, or the
            template ends with a space.
    """
    where = f"template = {template!r}"
    doubled = "braces hold the name of a column, and a brace that is text is doubled"
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{where}: its braces are not balanced ({error}); {doubled}") from error
    columns: dict[str, None] = {}
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if form or conversion or not name or name.isdigit() or set(name) & set(".["):
            held = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise UserError(
                f"{where}: {{{held}}} holds no plain column name; {doubled}. Rename a column that "
                "has no plain name"
            )
        columns[name] = None
    if not columns:
        raise UserError(f"{where} has no column, so all prompts would be alike: name one in braces")
    if template.endswith(" "):
        raise UserError(
            f"{where} ends with a space: leave it out, the space before an answer is the answer's "
            "(' good')"
        )
    return tuple(columns)


def _check_classes(prompt: PromptConfig) -> None:
    answers = prompt.answers
    said = f"answers = {json.dumps(answers, ensure_ascii=False)}"
    if not all(answer.strip() for answer in answers):
        raise UserError(f"{said}: one of them is empty; each class needs a token of its own")
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise UserError(f"{said}: give two or more that differ, one for each class")
    for name in ("labels", "names"):
        values = getattr(prompt, name)
        if values != "auto" and len(values) != len(answers):
            raise UserError(
                f"{name} = {json.dumps(values, ensure_ascii=False)} has {len(values)}, and {said} "
                f"has {len(answers)}: give one for each class, in the same order"
            )
    if prompt.labels != "auto":
        spelled = [one for label in prompt.labels for one in label.lower().split("|")]
        if len(set(spelled)) < len(spelled) or "" in spelled:
            raise UserError(
                f"labels = {json.dumps(prompt.labels, ensure_ascii=False)}: a label is empty, or "
                "of two classes"
            )
