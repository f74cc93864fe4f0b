"""The windows that users click in: form, wizards and viewer, in Scipion's real project window on a virtual screen."""
