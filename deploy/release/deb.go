package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// deb returns a Debian package (deb(5)). control is the control file, without Installed-Size.
// scripts has the maintainer scripts by name. conffiles has the names of the files that belong to
// the administrator.
func deb(control string, scripts map[string][]byte, conffiles []string, files tree, modTime time.Time) ([]byte, error) {
	var sums strings.Builder
	var bytesOf int64
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if f := files[name]; !f.mode.IsDir() {
			bytesOf += int64(len(f.body))
			if !slices.Contains(conffiles, name) {
				fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.body), name)
			}
		}
	}
	about := tree{}
	about.add("control", fmt.Appendf(nil, "%sInstalled-Size: %d\n", control, (bytesOf+1023)/1024))
	about.add("md5sums", []byte(sums.String()))
	var owned strings.Builder
	for _, name := range conffiles {
		fmt.Fprintf(&owned, "/%s\n", name)
	}
	about.add("conffiles", []byte(owned.String()))
	for name, text := range scripts {
		about.program(name, text)
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	arEntry(&b, "debian-binary", []byte("2.0\n"), modTime)
	for _, part := range []struct {
		name string
		tree
	}{{"control.tar.gz", about}, {"data.tar.gz", files}} {
		plain, err := part.tar("./", modTime)
		if err != nil {
			return nil, err
		}
		packed, err := zipped(plain)
		if err != nil {
			return nil, err
		}
		arEntry(&b, part.name, packed, modTime)
	}
	return b.Bytes(), nil
}

// arEntry adds a file to an ar archive.
func arEntry(b *bytes.Buffer, name string, body []byte, modTime time.Time) {
	fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, modTime.Unix(), 0, 0, "100644", len(body))
	b.Write(body)
	if len(body)%2 == 1 {
		b.WriteByte('\n')
	}
}

// debVersion makes a Debian version from the output of git describe. In Debian's order, a tag is
// older than a dirty build of the tag, which is older than any commit after the tag. A build
// without any tag is older than every release.
func debVersion(version string, at time.Time) string {
	v := strings.TrimPrefix(version, "v")
	if v == "" || v[0] < '0' || v[0] > '9' || !strings.Contains(v, ".") {
		return fmt.Sprintf("0~%s.%s", at.UTC().Format("20060102150405"), plain(v))
	}
	if tag, dirty := strings.CutSuffix(v, "-dirty"); dirty && !laterCommit.MatchString(tag) {
		v = tag + "-0-dirty"
	}
	base, rest, _ := strings.Cut(v, "-")
	if rest == "" {
		return base
	}
	if rest[0] < '0' || rest[0] > '9' { // 1.2.0-rc.1 comes before 1.2.0
		return base + "~" + plain(rest)
	}
	return base + "+" + plain(rest)
}

// laterCommit matches the output of git describe for a commit after a tag.
var laterCommit = regexp.MustCompile(`-[0-9]+-g[0-9a-f]+$`)

// plain replaces the characters that are forbidden or have a special meaning in a Debian version.
func plain(v string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '+' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '.'
	}, v)
}

// debTree returns the files of the package for one architecture.
func (r *release) debTree(p platform) (tree, error) {
	files := tree{}
	files.program("usr/bin/dray", r.programs[p])
	for name, body := range r.manual {
		packed, err := zipped(body)
		if err != nil {
			return nil, err
		}
		files.add("usr/share/man/man1/"+name+".gz", packed)
	}
	files.add("usr/share/bash-completion/completions/dray", r.completions["bash"])
	files.add("usr/share/zsh/vendor-completions/_dray", r.completions["zsh"])
	files.add("usr/share/fish/vendor_completions.d/dray.fish", r.completions["fish"])
	doc := "usr/share/doc/dray/"
	files.add(doc+"copyright", slices.Concat([]byte("dray is published at "+r.published+" under the following licence. The licences of\nthe modules that it is built from are in "+path.Base(noticesName)+".gz.\n\n"), r.source("LICENSE")))
	for from, to := range map[string][]byte{noticesName: r.notices, "changelog": r.source("CHANGELOG.md")} {
		packed, err := zipped(to)
		if err != nil {
			return nil, err
		}
		files.add(doc+from+".gz", packed)
	}
	for name, body := range r.documents {
		files.add(doc+name, body)
	}
	unit := bytes.ReplaceAll(r.source("deploy/systemd/dray.service"), []byte("/usr/local/bin/dray"), []byte("/usr/bin/dray"))
	files.add("usr/lib/systemd/system/dray.service", bytes.ReplaceAll(unit, []byte("/etc/systemd/system/"), []byte("/usr/lib/systemd/system/")))
	files.add(conffile, r.source("deploy/debian/dray.yaml"))
	return files, r.err
}

// conffile is the configuration file that the package installs. If the administrator has changed
// it, an update does not replace it without asking.
const conffile = "etc/dray/dray.yaml"

// deb makes the package for one architecture.
func (r *release) deb(p platform) error {
	files, err := r.debTree(p)
	if err != nil {
		return err
	}
	version := debVersion(r.version, r.at)
	control := strings.NewReplacer("@VERSION@", version, "@ARCHITECTURE@", p.arch, "@MAINTAINER@", r.maintainer, "@PUBLISHED@", r.published).Replace(string(r.source("deploy/debian/control")))
	scripts := map[string][]byte{}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		scripts[name] = bytes.Replace(r.source("deploy/debian/"+name), []byte("# @WAITING@\n"), r.source("deploy/debian/waiting"), 1)
	}
	body, err := deb(control, scripts, []string{conffile}, files, r.at)
	if err != nil {
		return err
	}
	return r.write(fmt.Sprintf("dray_%s_%s.deb", r.version, p.arch), body)
}
