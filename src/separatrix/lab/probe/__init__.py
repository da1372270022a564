"""``separatrix probe``: what is measured at every checkpoint of a folder, as a run that is stored, reported and reused.

One module for each subject: :mod:`.settings`; :mod:`.model` with :mod:`.jax_probed` and :mod:`.torch_probed`, what is
asked of a model of either framework; :mod:`.kind`, what a kind of probe declares; :mod:`.curvature`, :mod:`.density`,
:mod:`.noise`, :mod:`.kernel` (with :mod:`.kernel_course`), :mod:`.chaos` and :mod:`.barrier`, the kinds; :mod:`.kinds`,
the list of them; :mod:`.study`, the run; :mod:`.figures` and :mod:`.table`, how it is shown.
"""
