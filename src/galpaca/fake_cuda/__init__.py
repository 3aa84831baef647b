"""A graphics card that is not there: what torch would do on one, traced and compiled with fake tensors on a CPU.

Tensors of ``FakeTensorMode`` have a shape, a dtype and a device, and no values. With a stand-in for CUDA's runtime
(``cpp/``, ``library``) and a pretended card (``card``), those on the device ``cuda`` pass autocast, the real
``varlen_attn``, autograd, dynamo, and Inductor down to the Triton code that it would launch. Nothing is executed. From
that one can read dtypes, recompilations, reads by the host, bytes kept for backward and bytes moved; not time, and not
values.

All of it changes torch for the whole process and for good: ``process.become`` belongs into a process of its own, which
``python -m galpaca.fake_cuda CARD MODULE`` is.
"""
