"""A model as the client of an i-PI server, which moves the atoms: path integrals, replica exchange, driven dynamics.

    asecalc ipi silica.pt start.xyz --unix silica            # beside:  i-pi input.xml

The server sends positions and cell and gets energy, forces and virial back, over a socket (Kapil et al., Comput. Phys.
Commun. 236 (2019) 214). The client is that of ASE, so ASE's own `SocketIOCalculator` is a server for it, too.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from asecalc_mlip.errors import InputError
from asecalc_mlip.units import Dtype

__all__ = ["serve"]

_PAUSE_S = 0.2


def serve(
    model: str | Path,
    structure: str | Path | None = None,
    *,
    host: str = "localhost",
    port: int = 31415,
    unix: str | None = None,
    dtype: Dtype = "float32",
    device: str = "auto",
    wait_s: float = 60.0,
) -> int:
    """Compute for a server until it ends; returns for how many structures.

    Parameters
    ----------
    model : path
        A .pt file, or the name of a shipped one.
    structure : path, optional
        Elements and their order as the server has them, and which directions are periodic; by default the structure
        that comes with the model. Positions and cell come from the server.
    host, port : str, int
        Of the server, for a connection over the network.
    unix : str, optional
        Name of the server's local socket, the `address` of i-PI's input; in place of host and port.
    dtype : {"float32", "float64"}
    device : str
    wait_s : float
        Seconds in which the server may start.

    Raises
    ------
    InputError
        For a model or structure that cannot be used, where no server answers, and where one sends other atoms.
    """
    from ase.calculators.socketio import SocketClient, SocketClosed

    from asecalc_mlip.calculators.loading import load_calculator, load_structure

    atoms = load_structure(model, structure)
    atoms.set_constraint()  # the server moves the atoms, and needs the forces on all of them
    atoms.calc = load_calculator(model, device=device, dtype=dtype)
    # Wrong elements are told before a server waits, and the first step of the server is as fast as the others.
    atoms.get_forces()
    client = _connected(SocketClient, {"unixsocket": unix} if unix else {"host": host, "port": port}, wait_s)
    logging.getLogger("asecalc_mlip").info("connected; computing for the server")
    calls = 0
    try:
        # A virial needs a volume; i-PI takes zeros for a molecule in its large cell.
        for _ in client.irun(atoms, use_stress=bool(atoms.pbc.all())):
            calls += 1
    except (SocketClosed, ConnectionError) as error:
        raise InputError(f"the server ended the connection after {calls} structures: {error}") from None
    except (AssertionError, ValueError, KeyError) as error:  # of ASE's client, for what it does not expect
        what = error or "numbers that are not finite"
        raise InputError(
            f"after {calls} structures the server sent what cannot be used ({what}); the client computes "
            f"{atoms.get_chemical_formula()}, {len(atoms)} atoms: give it the structure of the server"
        ) from None
    return calls


def _connected(client: type, address: dict, wait_s: float):
    until = time.monotonic() + wait_s
    where = address.get("unixsocket") or f"{address['host']}:{address['port']}"
    while True:
        try:
            return client(**address)
        except (OSError, ValueError) as error:
            if time.monotonic() > until:
                raise InputError(
                    f"no server answers at {where} ({error}): start it first, with the same address in its input"
                ) from None
        time.sleep(_PAUSE_S)
