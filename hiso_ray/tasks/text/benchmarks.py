"""The table of language tasks: to add one, add a row, here or from another package.

A prompt is everything before the answer. In rows marked DeComFL, prompt and answers are those of
its public code (arXiv 2405.15861), which took most of them from MeZO (arXiv 2305.17333) and
PromptSource; where that code's prompt looks unintended, the row says what is different here.
"""

from __future__ import annotations

from hiso_ray.config.outside import outside
from hiso_ray.tasks.text.benchmark_row import Classification, Generation

YES_NO = (("Yes", "No"), (" Yes", " No"), ("yes", "no"), (" yes", " no"))
NO_YES = tuple(answers[::-1] for answers in YES_NO)
YES_NO_MAYBE = (("Yes", "No", "Maybe"), (" Yes", " No", " Maybe"), (" yes", " no", " maybe"))
NOT_OR_TRUE = ("0|false", "1|true")

BENCHMARKS: dict[str, Classification | Generation] = {
    # The embedded dataset of short reviews; see tasks/text/reviews.py.
    "reviews": Classification(
        data="generated",
        fields={"text": ("{text}",)},
        prompt="{text} It was",
        context="text",
        labels={"label": ("0", "1")},
        verbalizers=((" bad", " good"),),
        names=("negative", "positive"),
        max_length=64,
    ),
    # Socher et al. 2013. DeComFL.
    "sst2": Classification(
        data="nyu-mll/glue",
        config="sst2",
        columns=("text", "label"),
        fields={"text": ("{text}", "{sentence}")},
        prompt="{text} It was",
        context="text",
        labels={"label": ("0", "1")},
        verbalizers=((" bad", " good"),),
        names=("negative", "positive"),
        max_length=128,
    ),
    # Quora 2017. The prompt is this project's: the public code's prompt contains question 1 twice
    # and not question 2, so a model can only learn the majority class.
    "qqp": Classification(
        data="nyu-mll/glue",
        config="qqp",
        columns=("question1", "question2", "label"),
        fields={"first": ("{question1}",), "second": ("{question2}",)},
        may_be_empty=("second",),  # as in two rows on the hub
        prompt="Question 1: {first}\nQuestion 2: {second}\n"
        "Do these two questions ask the same thing? Yes or No?\n",
        context="first",
        labels={"label": ("0", "1"), "is_duplicate": ("0", "1")},
        verbalizers=NO_YES,
        names=("different", "duplicate"),
    ),
    # Dagan et al. 2005 and later, as in SuperGLUE. DeComFL.
    "rte": Classification(
        data="aps/super_glue",
        config="rte",
        columns=("premise", "hypothesis", "label"),
        fields={
            "premise": ("{premise}", "{sentence1}"),
            "hypothesis": ("{hypothesis}", "{sentence2}"),
        },
        prompt='{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n',
        context="premise",
        labels={"label": ("0|entailment", "1|not_entailment")},
        verbalizers=YES_NO,
        names=("entailment", "not entailment"),
    ),
    # De Marneffe et al. 2019; three classes. DeComFL, whose loss covers only two of them.
    "cb": Classification(
        data="aps/super_glue",
        config="cb",
        columns=("premise", "hypothesis", "label"),
        fields={"premise": ("{premise}",), "hypothesis": ("{hypothesis}",)},
        prompt='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n',
        context="premise",
        labels={"label": ("0|entailment", "1|contradiction", "2|neutral")},
        verbalizers=YES_NO_MAYBE,
        names=("entailment", "contradiction", "neutral"),
    ),
    # Clark et al. 2019. DeComFL.
    "boolq": Classification(
        data="aps/super_glue",
        config="boolq",
        columns=("passage", "question", "label"),
        fields={"passage": ("{passage}",), "question": ("{question}",)},
        prompt="{passage}\nQuestion: {question}\nIs that correct? Yes or No?\n",
        context="passage",
        labels={"label": NOT_OR_TRUE, "answer": NOT_OR_TRUE},
        verbalizers=NO_YES,
        names=("no", "yes"),
    ),
    # Pilehvar and Camacho-Collados 2019. DeComFL.
    "wic": Classification(
        data="aps/super_glue",
        config="wic",
        columns=("word", "sentence1", "sentence2", "label"),
        fields={"word": ("{word}",), "one": ("{sentence1}",), "two": ("{sentence2}",)},
        prompt='Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
        "{one}\n{two}\n",
        context="one",
        labels={"label": NOT_OR_TRUE},
        verbalizers=NO_YES,
        names=("different", "same"),
    ),
    # Levesque et al. 2012, as in SuperGLUE. DeComFL.
    "wsc": Classification(
        data="aps/super_glue",
        config="wsc.fixed",
        columns=("text", "span1_text", "span2_text", "label"),
        fields={
            "text": ("{text}",),
            "noun": ("{span1_text}", "{target[span1_text]}"),
            "pronoun": ("{span2_text!l}", "{target[span2_text]!l}"),
        },
        prompt='{text}\nIn the previous sentence, does the pronoun "{pronoun}" refer to {noun}? '
        "Yes or No?\n",
        context="text",
        labels={"label": NOT_OR_TRUE},
        verbalizers=NO_YES,
        names=("no", "yes"),
    ),
    # Khashabi et al. 2018, one row per candidate answer. DeComFL.
    "multirc": Classification(
        data="aps/super_glue",
        config="multirc",
        columns=("paragraph", "question", "answer", "label"),
        fields={
            "paragraph": ("{paragraph}",),
            "question": ("{question}",),
            "answer": ("{answer}",),
        },
        prompt='{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that '
        "correct? Yes or No?\n",
        context="paragraph",
        labels={"label": NOT_OR_TRUE},
        verbalizers=NO_YES,
        names=("wrong", "correct"),
    ),
    # Zhang et al. 2015; the hub counts classes from 0, the original CSV files from 1.
    "ag_news": Classification(
        data="fancyzhx/ag_news",
        splits=(("train",), ("test",)),
        columns=("class", "title", "description"),
        fields={"text": ("{text}", "{title} {description}", "{Title} {Description}")},
        prompt="{text} This is about",
        context="text",
        labels={
            "label": ("0", "1", "2", "3"),
            "class": ("1", "2", "3", "4"),
            "Class Index": ("1", "2", "3", "4"),
        },
        verbalizers=(
            (" world", " sports", " business", " technology"),
            (" world", " game", " money", " tech"),
        ),
        names=("World", "Sports", "Business", "Sci/Tech"),
        max_length=128,
    ),
    # Rajpurkar et al. 2016. DeComFL, with a space before the answer.
    "squad": Generation(
        data="rajpurkar/squad",
        fields={"title": ("{title}",), "context": ("{context}",), "question": ("{question}",)},
        prompt="Title: {title}\nContext: {context}\nQuestion: {question}\n"
        "Answer concisely in a few words:",
        context="context",
        references=("answers.text", "answers", "answer"),
        max_new_tokens=50,
    ),
    # Dua et al. 2019. MeZO; DeComFL trains and evaluates with two different prompts.
    "drop": Generation(
        data="ucinlp/drop",
        fields={"passage": ("{passage}", "{context}"), "question": ("{question}",)},
        prompt="Passage: {passage}\nQuestion: {question}\nAnswer:",
        context="passage",
        references=("answers_spans.spans", "answers", "answer"),
        max_new_tokens=50,
    ),
    # Narayan et al. 2018. DeComFL, without the second colon of its evaluation prompt.
    "xsum": Generation(
        data="EdinburghNLP/xsum",
        fields={"document": ("{document}",)},
        may_be_empty=("document",),  # as in some rows on the hub
        prompt="Document: {document}\nSummarize this in one sentence:",
        context="document",
        references=("summary",),
        max_new_tokens=60,
        metrics=("rougeL", "rouge1", "rouge2"),
    ),
    # Taori et al. 2023: Alpaca's prompts, with which FedKSeed (arXiv 2312.06353) trains on Natural
    # Instructions and Dolly; the data are Dolly's (Conover et al. 2023).
    "instructions": Generation(
        data="databricks/databricks-dolly-15k",
        fields={
            "instruction": ("{instruction}", "{definition}"),
            "input": ("{input}", "{inputs}", "{context}", ""),
        },
        prompt="Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
        without_context="Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:",
        context="input",
        references=("output", "response", "targets"),
        answer="{reference}{end}",
        max_new_tokens=128,
        train_examples=None,
        metrics=("rougeL",),
    ),
}
BENCHMARKS |= outside("hiso_ray.benchmarks", BENCHMARKS)
