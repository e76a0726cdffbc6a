package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// firstPullConfig is a dray before a registry on the same machine.
const firstPullConfig = `
state: {directory: /var/lib/dray}
cache: {directory: /var/cache/dray, max_bytes: 1GiB, min_free_bytes: 0}
upstreams:
  - {name: registry.test, url: "http://127.0.0.1:5001", hosts: [registry.test]}
`

// containerdUnit runs containerd without what needs a network.
const containerdUnit = `[Service]
Type=notify
ExecStart=/usr/local/bin/containerd
Delegate=yes
KillMode=process
`

const registryUnit = `[Service]
ExecStart=/usr/local/bin/crane registry serve --address 127.0.0.1:5001
`

// checkFirstPull runs deploy/first-pull on a machine with containerd, before a registry on the same
// machine.
func checkFirstPull(t *testing.T, deb string) {
	containerd, ctr, crane := needBuilt(t, "containerd"), needBuilt(t, "ctr"), needBuilt(t, "crane")
	b := boot(t)
	for from, to := range map[string]string{
		deb: "root/dray.deb", containerd: "usr/local/bin/containerd", ctr: "usr/local/bin/ctr", crane: "usr/local/bin/crane",
		"../../deploy/first-pull": "usr/local/bin/first-pull",
	} {
		b.put(from, to)
	}
	write(t, filepath.Join(b.root, "root/dray.yaml"), []byte(firstPullConfig))
	write(t, filepath.Join(b.root, "etc/systemd/system/containerd.service"), []byte(containerdUnit))
	write(t, filepath.Join(b.root, "etc/systemd/system/registry.service"), []byte(registryUnit))
	saveImage(t, filepath.Join(b.root, "root/image.tar"), "library/app:1", busybox(t, types.OCIManifestSchema1))
	b.run("systemctl daemon-reload && systemctl start containerd registry")
	b.await("crane push --insecure /root/image.tar 127.0.0.1:5001/library/app:1")

	out := b.run("SNAPSHOTTER=native first-pull /root/dray.deb registry.test/library/app:1 /root/dray.yaml")
	t.Logf("from the package to the first cached pull:\n%s", out)
	steps := regexp.MustCompile(`(?m)^ *\d+\.\d\d s  .+$`).FindAllString(out, -1)
	if len(steps) != 8 || !strings.HasSuffix(steps[7], "in all") {
		t.Errorf("%d steps, want 8", len(steps))
	}
	if n := strings.Count(b.run("journalctl -u dray -o cat --no-pager"), "kind=blob"); n < 4 {
		t.Errorf("containerd asked dray for %d blobs, want those of two pulls", n)
	}
}
