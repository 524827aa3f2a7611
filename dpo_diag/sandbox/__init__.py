"""The built-in world with known truth: a grammar of prompts and answers, gold reward and cost.

Start reading at ``words`` (what can be said), then ``grammar`` (how it is said), ``gold`` (what it
is worth and what it costs), ``annotate`` (how people judged it), ``world`` (the tables), ``groups``
(annotators who disagree) and ``panel`` (what some methods ask for beside the pairs).
"""
