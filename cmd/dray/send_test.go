package main

import (
	"testing"

	"dray/mirror"
)

// The way that a listener sends files is the one that was configured, and splice by default.
func TestSend(t *testing.T) {
	for _, test := range []struct {
		setting string
		splices bool
		copies  bool
	}{{setting: "", splices: true}, {setting: "send: splice, ", splices: true}, {setting: "send: sendfile, "}, {setting: "send: copy, ", copies: true}} {
		s := startStack(t, t.TempDir(), "name: main, ", "name: main, "+test.setting)
		server := s.servers[0]
		if copies := server.Handler.(*mirror.Listener).CopyFiles; server.Splice != test.splices || copies != test.copies {
			t.Errorf("%q: splices %v, copies %v", test.setting, server.Splice, copies)
		}
	}
}
