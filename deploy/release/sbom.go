package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// noticesName is the name of the file with the licences of all modules that a program contains.
const noticesName = "THIRD-PARTY-NOTICES.txt"

// component is a component of a bill of materials in CycloneDX 1.6.
type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	URL        string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

func goComponent(kind, name, version, sum string) component {
	url := "pkg:golang/" + name + "@" + version
	c := component{Type: kind, Ref: url, Name: name, Version: version, URL: url}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

// materials returns the bill of materials of a program, in CycloneDX 1.6. It names the modules that
// the Go linker recorded in the program. It leaves out the serial number and the time, which are
// optional in the format, so that two runs make the same bytes.
func materials(version string, program []byte) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	self := goComponent("application", info.Main.Path, version, "")
	self.Name = "dray"
	parts := []component{goComponent("library", "std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, goComponent("library", m.Path, m.Version, m.Sum))
	}
	needs := dependency{Ref: self.Ref}
	for _, c := range parts {
		needs.DependsOn = append(needs.DependsOn, c.Ref)
	}
	return json.MarshalIndent(map[string]any{
		"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata": map[string]any{"component": self}, "components": parts, "dependencies": []dependency{needs},
	}, "", "  ")
}

// licence matches the names of files with licences and notices.
var licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-.].*)?$`)

// thirdParties returns the licences of Go and of all modules that the programs contain. These
// licences require that a distributed program comes with their text.
func (r *release) thirdParties() ([]byte, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	dirs := map[string]string{"Go " + strings.TrimPrefix(runtime.Version(), "go"): strings.TrimSpace(string(goroot))}
	for _, t := range targets {
		list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}", t.source)
		list.Dir, list.Env = r.root, t.environment()
		out, err := list.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			if module, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
				dirs[module] = dir
			}
		}
	}
	var b bytes.Buffer
	b.WriteString("dray contains the following modules, under these licences.\n")
	for _, m := range slices.Sorted(maps.Keys(dirs)) {
		entries, err := os.ReadDir(dirs[m])
		if err != nil {
			return nil, err
		}
		found := false
		for _, e := range entries {
			if !licence.MatchString(e.Name()) || e.IsDir() {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dirs[m], e.Name()))
			if err != nil {
				return nil, err
			}
			found = true
			fmt.Fprintf(&b, "\n%s\n%s: %s\n\n%s\n", strings.Repeat("=", 72), m, e.Name(), strings.TrimSpace(string(text)))
		}
		if !found {
			return nil, fmt.Errorf("%s: no licence found in %s", m, dirs[m])
		}
	}
	return b.Bytes(), nil
}
