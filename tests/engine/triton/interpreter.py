"""What Triton 3.6's interpreter needs to run with NumPy 2.4, and to run faster."""

from __future__ import annotations


def mend():
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    # Where triton was imported before, its own functions, such as zeros and sum, are for a GPU.
    for module in (tl, tl.standard):
        for name, value in list(vars(module).items()):
            if isinstance(value, JITFunction):
                setattr(module, name, interpreter.InterpretedFunction(value.fn))

    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch_tensor(tensor, scope)
        # Its own takes int() of an array of one dimension, which NumPy no longer allows; loops over a row need it.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def call(function, *args, **options):
        # Its own patches the language anew at every call of a function from a kernel.
        if tl.core.is_builtin(tl.core.full) or tl.core.is_builtin(tl.load):
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **options)

    def without_name(self, types, fields=None):
        # Its own spells out a name, for nobody, at every tensor.
        self.types, self.fields, self.name = types, fields or [""] * len(types), "tuple"

    interpreter._patch_lang_tensor = patched
    interpreter.InterpretedFunction.__call__ = call
    tl.core.tuple_type.__init__ = without_name
