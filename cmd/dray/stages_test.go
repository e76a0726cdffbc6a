package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/upstream/ecrtest"
)

// Each stage that is configured here keeps an image out of ECR, says why in the client's terminal,
// and lets the clean twin pass.
func TestStagesReject(t *testing.T) {
	key := "AK" + "IAQ7PZ3XK2MLWN5VYT"
	policy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"result":{"allowed":%t,"message":"no owner on duty"}}`, r.URL.Path == "/yes")
	}))
	defer policy.Close()
	labelled := strings.Replace(plainConfig, `"os":"linux"`, `"os":"linux","config":{"Labels":{"team":"core"}}`, 1)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil { // the scanner is another user's
		t.Fatal(err)
	}
	script := filepath.Join(dir, "scan")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ngrep -q team $1/blobs/sha256/* || { echo CVE-2031-1 in libfoo; exit 1; }\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := gzipOf(t, tarOf(t, "etc/motd", "hello\n"))
	large := func(bytes int, variable string) string {
		return strings.Replace(plainConfig, `"os":"linux"`, `"os":"linux","author":"`+strings.Repeat("x ", bytes/2)+`","config":{"Env":["A=1","`+variable+`"]}`, 1)
	}
	for name, c := range map[string]struct {
		checks, twin string // twin replaces the checks for the clean image, where that is what differs
		bad, good    image
		says         []string
		silent       string // what nobody is told
	}{
		"secrets": {
			checks: "  secrets: {mode: enforce}",
			bad:    newImage(t, plainConfig, plain, gzipOf(t, tarOf(t, "app/settings.ini", "region=eu\naccess="+key+"\n")), plain),
			good:   newImage(t, plainConfig, plain),
			says:   []string{"[secrets/aws-access-key]", "layer 2 of 3", "/app/settings.ini", "line 2", "fingerprint"},
			silent: key,
		},
		"secrets in a large configuration": {
			checks: "  secrets: {mode: enforce, within: 20s}",
			bad:    newImage(t, large(5<<20, "ACCESS="+key), plain), good: newImage(t, large(6<<20, "B=2"), plain),
			says:   []string{"[secrets/aws-access-key]", "in the configuration (config.Env[1])"},
			silent: key,
		},
		"a configuration that is too large": {
			checks: "  secrets: {mode: enforce, within: 20s}",
			bad:    newImage(t, large(33<<20, "B=2"), plain), good: newImage(t, large(8<<20, "B=2"), plain),
			says: []string{"[archive/document]", "more than 33554432", "leave out of a configuration"},
		},
		"rules": {
			checks: "  rules:\n    mode: enforce\n    rules:\n    - {name: team, each: manifest, expression: 'manifest.?config.?config.?Labels.?team.hasValue()', message: nobody owns the image, fix: set the label team}",
			bad:    newImage(t, plainConfig, plain), good: newImage(t, labelled, plain),
			says: []string{"[rules/team]", "nobody owns the image", "set the label team"},
		},
		"attestations": {
			checks: "  attestations: {mode: enforce, provenance: true}", twin: "  attestations: {mode: warn, provenance: true}",
			bad: newImage(t, plainConfig, plain), good: newImage(t, plainConfig, plain),
			says: []string{"[attestations/provenance]", "no provenance is declared", "--provenance=true"},
		},
		"webhook": {
			checks: "  webhooks: [{mode: enforce, form: opa, url: '" + policy.URL + "/no'}]", twin: "  webhooks: [{mode: enforce, form: opa, url: '" + policy.URL + "/yes'}]",
			bad: newImage(t, plainConfig, plain), good: newImage(t, plainConfig, plain),
			says: []string{"[webhook/refused]", "no owner on duty"},
		},
		"exec": {
			checks: "  exec: [{mode: enforce, command: ['" + script + "', '{layout}']}]",
			bad:    newImage(t, plainConfig, plain), good: newImage(t, labelled, plain),
			says: []string{"[exec/refused]", "CVE-2031-1"},
		},
		"a time limit": {
			checks: "  secrets: {mode: enforce, within: 1ns}", twin: "  secrets: {mode: enforce, within: 1m}",
			bad: newImage(t, plainConfig, plain), good: newImage(t, plainConfig, plain),
			says: []string{"layer 1 of 1: no result: time limit exceeded", "raise secrets.within"},
		},
		"clamd that is not there": {
			checks: "  clamd: {mode: enforce, address: 'unix:/nowhere/clamd.ctl'}", twin: "  clamd: {mode: enforce, on_error: warn, address: 'unix:/nowhere/clamd.ctl'}",
			bad: newImage(t, plainConfig, plain), good: newImage(t, plainConfig, plain),
			says: []string{"clamd", "no result"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := &recording{}
			s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), checked(c.checks)...)
			s.ecr.CreateRepository("team/app")
			msg := s.message(s.pushImage("team/app", "v1", c.bad))
			for _, want := range c.says {
				if !strings.Contains(msg, want) {
					t.Errorf("%q is not in the message:\n%s", want, msg)
				}
			}
			if c.silent != "" && (strings.Contains(msg, c.silent) || strings.Contains(log.String(), c.silent)) {
				t.Error("the secret is told")
			}
			s.nothingStored("team/app", c.bad)
			if c.twin != "" {
				s = startStack(t, t.TempDir(), checked(c.twin)...)
				s.ecr.CreateRepository("team/app")
			}
			if r := s.pushImage("team/app", "v1", c.good); r.StatusCode != http.StatusCreated {
				t.Errorf("the clean twin: %s %s", r.Status, r.body)
			}
		})
	}
}

// A layer of which a check can tell nothing is not completed at ECR, any more than one that it
// refuses. When the check works again the same push passes, without any byte from the client.
func TestLayerOfUnknownIsHeldBack(t *testing.T) {
	address := filepath.Join(t.TempDir(), "clamd")
	s := startStack(t, t.TempDir(), checked("  clamd: {mode: enforce, address: 'unix:"+address+"'}")...)
	s.ecr.CreateRepository("team/app")
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "etc/motd", "hello\n")))
	for range 2 {
		if msg := s.message(s.pushImage("team/app", "v1", img)); !strings.Contains(msg, "no result") {
			t.Errorf("the message is %q", msg)
		}
		<-s.ecr.Idle()
		if s.ecr.HasBlob("team/app", img.man.Layers[0].Digest) {
			t.Error("ECR has the layer")
		}
	}
	s.nothingStored("team/app", img)
	cleanBill(t, address)
	if r := s.putManifest("team/app", "v1", img.man); r.StatusCode != http.StatusCreated {
		t.Errorf("when clamd is back: %s %s", r.Status, r.body)
	}
	s.holds("team/app", "v1", img.man, img.layers...)
}

// cleanBill is a clamd that finds nothing.
func cleanBill(t *testing.T, address string) {
	t.Helper()
	ln, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		_, _ = in.ReadString(0) // zIDSESSION
		for n := 1; ; n++ {
			if _, err := in.ReadString(0); err != nil { // zINSTREAM
				return
			}
			for length := uint32(1); length > 0; _, _ = io.CopyN(io.Discard, in, int64(length)) {
				if binary.Read(in, binary.BigEndian, &length) != nil {
					return
				}
			}
			fmt.Fprintf(c, "%d: stream: OK\x00", n)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			serve(c)
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}
