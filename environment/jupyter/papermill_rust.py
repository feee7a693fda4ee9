"""Parameters of papermill in Rust: `papermill in.ipynb out.ipynb -p lr 0.1` writes `let lr = 0.1;`.

papermill has entry points for engines, but not for languages. So it loads this module as an engine, and the module
registers the language.
"""

import math

from papermill.engines import NBClientEngine
from papermill.translators import Translator, papermill_translators


class RustTranslator(Translator):
    @classmethod
    def translate_none(cls, val):
        return "None::<String>"

    @classmethod
    def translate_bool(cls, val):
        return "true" if val else "false"

    @classmethod
    def translate_int(cls, val):
        return str(val) if -(2**31) <= val < 2**31 else f"{val}_i64"

    @classmethod
    def translate_float(cls, val):
        if math.isfinite(val):
            return f"{val!r}_f64"
        return "f64::NAN" if math.isnan(val) else f"{'-' if val < 0 else ''}f64::INFINITY"

    @classmethod
    def translate_str(cls, val):
        # As many # as no part of the text has.
        hashes = "#"
        while f'"{hashes}' in val:
            hashes += "#"
        return f'String::from(r{hashes}"{val}"{hashes})'

    @classmethod
    def translate_list(cls, val):
        return f"vec![{', '.join(map(cls.translate, val))}]"

    @classmethod
    def translate_dict(cls, val):
        pairs = ", ".join(f"({cls.translate(str(key))}, {cls.translate(value)})" for key, value in val.items())
        return f"std::collections::BTreeMap::from([{pairs}])"

    @classmethod
    def comment(cls, cmt_str):
        return f"// {cmt_str}"

    @classmethod
    def assign(cls, name, str_val):
        return f"let {name} = {str_val};"


papermill_translators.register("rust", RustTranslator)


class Engine(NBClientEngine):
    """papermill's own engine, under another name."""
