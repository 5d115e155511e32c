"""Checks of hack/oci: python3 -m unittest hack/oci_test.py"""

import importlib.machinery
import importlib.util
import io
import json
import os
import struct
import sys
import tarfile
import tempfile
import unittest

sys.dont_write_bytecode = True
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oci")
LOADER = importlib.machinery.SourceFileLoader("oci", PROGRAM)
oci = importlib.util.module_from_spec(importlib.util.spec_from_loader("oci", LOADER))
LOADER.exec_module(oci)


class Archive:
    """An archive made from a spec, opened for looking at."""

    def __init__(self, spec):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "out.tar")
            self.summary = oci.write_archive(spec, path)
            self.left_over = sorted(os.listdir(folder))
            with open(path, "rb") as file:
                self.bytes = file.read()
        with tarfile.open(fileobj=io.BytesIO(self.bytes)) as tar:
            self.files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
            self.times = {m.mtime for m in tar}

    def json(self, name):
        return json.loads(self.files[name])

    def blob(self, descriptor):
        return self.files["blobs/" + descriptor["digest"].replace(":", "/")]

    def manifests(self):
        return {m["annotations"]["io.containerd.image.name"]: json.loads(self.blob(m))
                for m in self.json("index.json")["manifests"]}

    def layer(self, tag, number):
        content = self.blob(self.manifests()[tag]["layers"][number])
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            return {m.name: m for m in tar}


def spec(**more):
    return {
        "architecture": "amd64",
        "layers": {
            "base": [{"path": "/etc/passwd", "text": "root:x:0:0::/:\n"}, {"path": "/tmp", "dir": True, "mode": "1777"}],
            "app": [{"path": "/bin/app", "text": "app", "mode": "0755", "capability": "cap_net_admin+p"},
                    {"path": "/app", "link": "bin/app"}],
        },
        "images": [{"tags": ["x.dev/one:1", "x.dev/one:2"], "layers": ["base"]},
                   {"tags": ["x.dev/two:1"], "layers": ["base", "app"], "user": "64321:64321", "workdir": "/tmp",
                    "entrypoint": ["/app"], "env": {"B": "2", "A": "1"}, "labels": {"k": "v"}}],
        **more,
    }


class OciTest(unittest.TestCase):
    def test_the_same_input_gives_the_same_bytes(self):
        turned = spec()
        turned["layers"]["base"].reverse()
        self.assertEqual(Archive(spec()).bytes, Archive(turned).bytes)
        self.assertEqual(Archive(spec()).times, {0})

    def test_other_content_gives_another_digest(self):
        other = spec()
        other["layers"]["app"][0]["text"] = "changed"
        first, second = Archive(spec()).summary, Archive(other).summary
        self.assertEqual(first[0], second[0])
        self.assertNotEqual(first[1].split()[0], second[1].split()[0])

    def test_a_capability_is_the_kernels_permitted_only_structure(self):
        xattr = Archive(spec()).layer("x.dev/two:1", 1)["bin/app"].pax_headers["SCHILY.xattr.security.capability"]
        raw = xattr.encode("utf-8", "surrogateescape")
        self.assertEqual(raw, bytes.fromhex("0000000200100000000000000000000000000000"))
        self.assertEqual(struct.unpack("<5I", oci.capability_xattr("cap_net_admin,cap_bpf+p")),
                         (0x02000000, 1 << 12, 0, 1 << 7, 0))

    def test_capability_bytes_above_ascii_survive(self):
        one = {"layers": {"a": [{"path": "/a", "text": "", "capability": "cap_setuid+p"}]},
               "images": [{"tags": ["x.dev/a:1"], "layers": ["a"]}]}
        xattr = Archive(one).layer("x.dev/a:1", 0)["a"].pax_headers["SCHILY.xattr.security.capability"]
        self.assertEqual(xattr.encode("utf-8", "surrogateescape")[4:8], b"\x80\0\0\0")

    def test_effective_and_unknown_capabilities_are_refused(self):
        for text in ("cap_net_admin+ep", "cap_net_admin", "cap_nothing+p"):
            with self.assertRaises(oci.SpecError):
                oci.capability_xattr(text)

    def test_a_shared_layer_is_stored_once(self):
        archive = Archive(spec())
        manifests = archive.manifests()
        self.assertEqual(manifests["x.dev/one:1"]["layers"][0], manifests["x.dev/two:1"]["layers"][0])
        blobs = [name for name in archive.files if name.startswith("blobs/")]
        self.assertEqual(len(blobs), 2 + 2 + 2, "two layers, two configs, two manifests")

    def test_every_blob_is_named_by_its_digest(self):
        for name, content in Archive(spec()).files.items():
            if name.startswith("blobs/"):
                self.assertEqual(os.path.basename(name), oci.digest_of(io.BytesIO(content)))

    def test_every_tag_is_listed_for_both_readers(self):
        archive = Archive(spec())
        self.assertEqual(sorted(archive.manifests()), ["x.dev/one:1", "x.dev/one:2", "x.dev/two:1"])
        docker = archive.json("manifest.json")
        self.assertEqual([m["RepoTags"] for m in docker], [["x.dev/one:1", "x.dev/one:2"], ["x.dev/two:1"]])
        for path in [docker[1]["Config"], *docker[1]["Layers"]]:
            self.assertIn(path, archive.files)

    def test_the_config_carries_what_the_image_says(self):
        archive = Archive(spec())
        config = json.loads(archive.blob(archive.manifests()["x.dev/two:1"]["config"]))
        self.assertEqual(config["config"], {"User": "64321:64321", "WorkingDir": "/tmp", "Entrypoint": ["/app"],
                                            "Env": ["A=1", "B=2"], "Labels": {"k": "v"}})
        self.assertEqual(len(config["rootfs"]["diff_ids"]), 2)

    def test_members_keep_mode_and_owner_and_have_parents(self):
        members = Archive(spec()).layer("x.dev/two:1", 1)
        self.assertTrue(members["bin"].isdir())
        self.assertEqual((members["bin/app"].mode, members["bin/app"].uid, members["bin/app"].uname), (0o755, 0, ""))
        self.assertEqual(members["app"].linkname, "bin/app")
        self.assertEqual(Archive(spec()).layer("x.dev/one:1", 0)["tmp"].mode, 0o1777)

    def test_a_tree_is_copied_with_links(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "sub"))
            os.symlink("../elsewhere", os.path.join(folder, "sub", "link"))
            one = {"layers": {"a": [{"path": "/opt", "tree": folder, "uid": 7}]},
                   "images": [{"tags": ["x.dev/a:1"], "layers": ["a"]}]}
            members = Archive(one).layer("x.dev/a:1", 0)
        self.assertEqual(members["opt/sub/link"].linkname, "../elsewhere")
        self.assertEqual(members["opt/sub"].uid, 7)

    def test_a_mistake_in_the_spec_is_refused_and_leaves_nothing(self):
        wrong = [spec(tag="x"), spec(images=[{"tags": ["x.dev/a:1"], "layers": ["none"]}]),
                 spec(layers={"base": [{"path": "relative", "text": ""}], "app": []}),
                 spec(layers={"base": [{"path": "/a", "text": "", "link": "b"}], "app": []})]
        for case in wrong:
            with tempfile.TemporaryDirectory() as folder, self.assertRaises(oci.SpecError):
                try:
                    oci.write_archive(case, os.path.join(folder, "out.tar"))
                finally:
                    self.assertEqual(os.listdir(folder), [])

    def test_only_the_archive_is_left_behind(self):
        self.assertEqual(Archive(spec()).left_over, ["out.tar"])


if __name__ == "__main__":
    unittest.main()
