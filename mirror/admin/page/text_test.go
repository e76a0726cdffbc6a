package page

import "testing"

// TestNegativeNumbers: the numbers of the page have the same minus sign.
func TestNegativeNumbers(t *testing.T) {
	if got, want := size(-999_950)+" "+size(2500)+" "+thousands(-2500), "−1.0 MB 2.5 kB −2\u202f500"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
