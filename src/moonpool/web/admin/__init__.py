"""What an operator's program asks for: keys, accounts, people, money, models, hosts, totals, the log of changes.

Rules:
- Every route is one row of `ROUTES` and one function, so that the command line, a console, the OpenAPI document and
  the reference page are made from the same table.
- Who may call it stands in its row, and one function decides (`access.authorise`): by the role in the account that the
  request is about. What somebody may not see and what is not there are the same answer.
- A change is in the audit log before it is made (`Ask.log`); what cannot be logged is not done.
- A secret (of a key, a token, a code, an alert) is in one answer, that of its creation, and in no other.

`handle` answers (status, something JSON can say) or raises Problem. The server offers these routes on the socket in
its home, whose file mode is the permission, and on its port for who shows a token (`door.py`); the command line calls
`handle` itself when no server runs.
"""

from moonpool.web.admin.routing import BASE, SOCKET, Actor, Answer, Ask, Desk, Route
from moonpool.web.admin.table import ROUTES, handle
from moonpool.web.admin.types import SWITCHES

__all__ = ["BASE", "ROUTES", "SOCKET", "SWITCHES", "Actor", "Answer", "Ask", "Desk", "Route", "handle"]
