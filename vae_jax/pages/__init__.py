"""One HTML file that shows runs: `look` gathers what a run has, `page` writes it down. No script, no outside request.

A package beside `figures`, because a page is read on screens of any width, in the dark, and by screen readers: curves
are SVG with text in it, images are PNG inside the file. Nothing is imported here, so that `--help` stays quick.
"""
