"""Checks of hack/kind-node/runc-wrapper: python3 hack/kind-node/runc_wrapper_test.py"""

import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runc-wrapper")
LOADER = importlib.machinery.SourceFileLoader("runc_wrapper", PROGRAM)
wrapper = importlib.util.module_from_spec(importlib.util.spec_from_loader("runc_wrapper", LOADER))
LOADER.exec_module(wrapper)

ASKED = {"capabilities": {"bounding": ["CAP_NET_ADMIN", "CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"],
                          "ambient": None}, "oomScoreAdj": -500}
GRANTED = {"capabilities": {"bounding": ["CAP_NET_ADMIN"], "effective": [], "ambient": None}, "oomScoreAdj": 0}


class RuncWrapperTest(unittest.TestCase):
    def mended(self, document):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "config.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(document, file)
            wrapper.mend_file(path)
            self.assertEqual(os.listdir(folder), ["config.json"])
            with open(path, encoding="utf-8") as file:
                return json.load(file)

    def test_a_container_loses_only_what_the_host_lacks(self):
        self.assertEqual(self.mended({"process": ASKED, "hostname": "x"}), {"process": GRANTED, "hostname": "x"})

    def test_a_process_of_exec_is_mended_too(self):
        self.assertEqual(self.mended(ASKED), GRANTED)

    def test_what_asks_for_nothing_special_is_unchanged(self):
        plain = {"process": {"args": ["true"], "oomScoreAdj": 100}}
        self.assertEqual(self.mended(plain), plain)

    def test_the_files_are_found_in_every_way_to_write_them(self):
        for arguments, found in [
            (["--root", "/r", "create", "--bundle", "/b", "--pid-file", "/p", "id"], ["/b/config.json"]),
            (["create", "--bundle=/b", "id"], ["/b/config.json"]),
            (["run", "-b", "/b", "id"], ["/b/config.json"]),
            (["exec", "--process", "/x.json", "--detach", "id"], ["/x.json"]),
            (["exec", "--process=/x.json", "id"], ["/x.json"]),
            (["delete", "--force", "process"], []),
            (["--version"], []),
        ]:
            self.assertEqual(list(wrapper.files(arguments)), found, arguments)


if __name__ == "__main__":
    unittest.main()
