"""x"""

Run = fit = None
