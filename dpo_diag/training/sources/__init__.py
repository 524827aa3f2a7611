"""What variants need beside log-probs, one file per need of ``variants._base.Needs``.

A file is called like the need and has ``make_source(context)``. Start reading at ``_base.py``.
"""
