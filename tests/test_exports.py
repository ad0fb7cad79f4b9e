"""The package is what the notebooks export, and the notebooks are clean."""

import check_exports


def test_export_and_clean_change_no_file():
    check_exports.main()
