#!/bin/sh
# Which branches of the ledger and of the limiter do their own tests reach? All, or this fails.
#
# Only tests of units, of conformance, and of a store whose disk or network fails count: a line that a whole server
# happens to pass is not tested by that.
set -eu

cd "$(dirname "$0")/../.."
COVERAGE_FILE=$(mktemp -d)/coverage
export COVERAGE_FILE
trap 'rm -rf "$(dirname "$COVERAGE_FILE")"' EXIT

.venv/bin/python -m coverage run --branch --source=moonpool.ledger,moonpool.state -m pytest -x \
    tests/unit/ledger tests/unit/state tests/unit/relay/test_limits.py \
    tests/conformance/test_books.py tests/conformance/test_books_rules.py \
    tests/conformance/test_books_funds.py tests/conformance/test_limiter.py tests/conformance/test_keys.py \
    tests/faults/test_store_disk.py tests/faults/test_limits_store.py tests/faults/test_limits_link.py -k "not first_start"

of=src/moonpool/state
echo "The books' transactions, for information:"
.venv/bin/python -m coverage report -m --include="$of/books.py,$of/groupcommit.py,$of/setbacks.py,$of/file.py,$of/thread.py"
echo "The ledger and the limiter:"
.venv/bin/python -m coverage report -m --fail-under=100 --include="src/moonpool/ledger/*,\
$of/tally.py,$of/booking.py,$of/rows.py,$of/reading.py,$of/memory.py,$of/valkey.py,$of/valkey_link.py,\
$of/valkey_trouble.py"
