package pipeline

import "testing"

func TestSemver(t *testing.T) {
	for version, want := range map[string]bool{
		"1.2.3": true, "v1.2.3": true, "0.0.0": true, "1.2.3-rc.1": true, "1.2.3-0a.-": true, "1.2.3+build.5": true, "v1.2.3-rc.1+001": true,
		"": false, "1.2": false, "01.2.3": false, "1.2.3-": false, "1.2.3-01": false, "1.2.3-a..b": false, "1.2.3+": false, "1.2.3+a..b": false, "latest": false,
	} {
		if got := Semver(version); got != want {
			t.Errorf("Semver(%q) = %v", version, got)
		}
	}
}

func TestWhole(t *testing.T) {
	for text, match := range map[string]string{"a": "a", "a|ab": "ab", "a|b$": "b", "(?i)a": "A", `\Qa.b\E`: "a.b", "": ""} {
		re, err := Whole(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !re.MatchString(match) || re.MatchString(match+"x") || re.MatchString("x"+match) || re.MatchString(match+"\n") {
			t.Errorf("%q matches not only %q", text, match)
		}
	}
	for _, text := range []string{"a)|(?:b", "a)(?:b", "(", "[", `a\`} {
		if re, err := Whole(text); err == nil {
			t.Errorf("%q becomes %q", text, re)
		}
	}
}
