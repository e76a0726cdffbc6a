package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// booted is a Debian that systemd has booted in a container, with a network of its own.
type booted struct {
	t       *testing.T
	root    string
	process *process
	leader  string // process that is number 1 in the container
}

// boot unpacks a Debian and boots it.
func boot(t *testing.T) *booted {
	t.Helper()
	nspawn := need(t, "systemd-nspawn")
	archive := debootstrapped(t, "debian-service", "systemd", "systemd-sysv", "dbus", "ca-certificates")
	b := &booted{t: t, root: filepath.Join(shortDir(t), "root")}
	if err := os.Mkdir(b.root, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, environment(), "tar", "-C", b.root, "-xf", archive)
	run(t, environment(), "/bin/sh", "-c", `echo "127.0.0.1 localhost" > "$0/etc/hosts"`, b.root) // readable for every user
	b.process = start(t, "nspawn", environment(), nspawn, "--directory="+b.root, "--boot", "--register=no", "--keep-unit", "--private-network", "--console=passive", "--machine=dray-test")
	b.process.await("boot", func(context.Context) error {
		pid := strconv.Itoa(b.process.cmd.Process.Pid)
		children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
		if err != nil {
			return err
		}
		if b.leader = strings.TrimSpace(string(children)); b.leader == "" || strings.Contains(b.leader, " ") {
			return errors.New("no leader yet")
		}
		out, _ := b.try("systemctl is-system-running") // its exit code is not 0 if a service failed
		if out != "running" && out != "degraded" {
			return errors.New(out)
		}
		return nil
	})
	return b
}

// try runs a script in the container.
func (b *booted) try(script string) (string, error) {
	b.t.Helper()
	return try(b.t, []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"},
		need(b.t, "nsenter"), "--target", b.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "/bin/sh", "-c", script)
}

// run is try for a script that has to succeed.
func (b *booted) run(script string) string {
	b.t.Helper()
	out, err := b.try(script)
	if err != nil {
		journal, _ := b.try("journalctl --no-pager -n 30 -u dray")
		b.t.Fatalf("%s: %v\n%s\n%s", script, err, out, journal)
	}
	return out
}

// refused runs a script that has to fail with a message.
func (b *booted) refused(script, message string) {
	b.t.Helper()
	if out, err := b.try(script); err == nil || !strings.Contains(out, message) {
		b.t.Errorf("%s: %v\n%s", script, err, out)
	}
}

// put copies a file into the container.
func (b *booted) put(from, to string) {
	b.t.Helper()
	run(b.t, environment(), "cp", from, filepath.Join(b.root, to))
}

// documented runs the commands in docs/install.md from a text on, up to the next heading.
func (b *booted) documented(from string) {
	b.t.Helper()
	_, section, found := strings.Cut(string(read(b.t, "../../docs/install.md")), from)
	section, _, _ = strings.Cut(section, "\n### ")
	n := 0
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "# "); ok {
			b.run(command)
			n++
		}
	}
	if !found || n == 0 {
		b.t.Fatalf("docs/install.md has no commands after %q", from)
	}
}

// await waits until a script succeeds.
func (b *booted) await(script string) {
	b.t.Helper()
	b.process.await(script, func(context.Context) error {
		if out, err := b.try(script); err != nil {
			return errors.New(out)
		}
		return nil
	})
}

// withQueue is a configuration whose registry nobody answers for, so that pushes wait, and which
// has hosted repositories.
const withQueue = `
state: {directory: /var/lib/dray}
cache: {directory: /var/cache/dray, max_bytes: 1GiB, min_free_bytes: 0}
upstreams:
  - {name: ecr, url: "http://123456789012.dkr.ecr.xx-test-1.amazonaws.com", kind: oci, push: true, address: "127.0.0.1:9", acknowledge: local}
  - {name: own, kind: local, prefixes: [own]}
`

// checkPackage lives through what docs/install.md says of the package.
func checkPackage(t *testing.T, deb string) {
	b := boot(t)
	b.put(deb, "root/dray.deb")
	b.put(needBuilt(t, "crane"), "usr/local/bin/crane")
	saveImage(t, filepath.Join(b.root, "root/image.tar"), "team/app:1", busybox(t, types.DockerManifestSchema2))

	t.Log("install, and start without configuration")
	b.run("apt-get install -y /root/dray.deb")
	b.await("dray health")
	if out := b.run("systemctl is-enabled dray; stat -c '%U %a' /var/lib/dray /var/cache/dray; stat -c %U /proc/$(systemctl show -P MainPID dray); dray version"); !strings.HasPrefix(out, "enabled\ndray 700\ndray 700\ndray\ndray "+releaseVersion+" ") {
		t.Errorf("after the installation:\n%s", out)
	}
	b.run("dray check --config /etc/dray/dray.yaml && dpkg --verify dray")
	if out := b.run("systemctl show -p Result -p NRestarts dray"); !strings.Contains(out, "NRestarts=0") {
		t.Errorf("the service: %s", out)
	}

	t.Log("fill the queue and a hosted repository")
	write(t, filepath.Join(b.root, "etc/dray/dray.yaml"), []byte(withQueue))
	b.run("dray check --config /etc/dray/dray.yaml && systemctl restart dray")
	b.await("dray health")
	b.run("crane push --insecure /root/image.tar 127.0.0.1:5000/own/base:1")
	b.run("crane push --insecure /root/image.tar 127.0.0.1:5000/team/app:1")
	kept := func() {
		t.Helper()
		b.await("dray health")
		if out := b.run("dray queue --json"); strings.Count(out, `"repository": "team/app"`) != 1 {
			t.Errorf("the queue is %s", out)
		}
		b.run("crane validate --insecure --remote 127.0.0.1:5000/own/base:1")
		b.run("ls /var/lib/dray/queue/journal /var/lib/dray/hosted/own/base/_repository.json")
	}
	kept()

	t.Log("upgrade and downgrade")
	unpacked := filepath.Join(shortDir(t), "newer")
	run(t, environment(), need(t, "dpkg-deb"), "--raw-extract", deb, unpacked)
	control := filepath.Join(unpacked, "DEBIAN/control")
	write(t, control, []byte(strings.Replace(string(read(t, control)), "Version: "+releaseVersion, "Version: 9.0.0", 1)))
	run(t, environment(), need(t, "dpkg-deb"), "--build", "-Zgzip", unpacked, filepath.Join(b.root, "root/newer.deb"))
	for _, step := range []string{"apt-get install -y /root/newer.deb", "apt-get install -y --allow-downgrades /root/dray.deb"} {
		before := b.run("systemctl show -p MainPID dray")
		b.run(step)
		kept()
		if after := b.run("systemctl show -p MainPID dray"); after == before {
			t.Errorf("%s does not restart the service", step)
		}
		if out := b.run("cat /etc/dray/dray.yaml"); out != strings.TrimSpace(withQueue) {
			t.Errorf("%s has changed the configuration:\n%s", step, out)
		}
	}

	t.Log("backup and restore, and back to the layout of a version without a state directory")
	b.documented("### Backup and restore\n")
	kept()
	b.run("test -d /var/lib/dray.old && rm -r /var/lib/dray.old")
	b.run("mkdir -p /var/lib/dray/pins && touch /var/lib/dray/pins/none") // so that the last step finds something
	b.documented("version that reads the directory. A version that")
	b.run("ls /var/cache/dray/queue/journal && rm /var/cache/dray/content/pins/none && systemctl start dray")
	kept()

	t.Log("remove and purge")
	b.refused("apt-get remove -y dray", "1 pushes are acknowledged and not forwarded yet")
	b.refused("apt-get purge -y dray", "1 pushes are acknowledged and not forwarded yet")
	kept()
	id := regexp.MustCompile(`"id": (\d+)`).FindStringSubmatch(b.run("dray queue --json"))
	if id == nil {
		t.Fatal("the queue names no push")
	}
	b.run("dray queue drop " + id[1])
	b.run("apt-get remove -y dray")
	b.run("test ! -e /usr/bin/dray && test -e /etc/dray/dray.yaml && test -e /var/lib/dray/hosted/own/base/_repository.json")
	b.refused("apt-get purge -y dray", "has repositories that exist nowhere else")
	b.run("rm -r /var/lib/dray/hosted && apt-get purge -y dray")
	b.run("test ! -e /var/lib/dray && test ! -e /var/cache/dray && test ! -e /etc/dray")
}
