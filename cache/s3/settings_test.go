package s3

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"dray/cache/s3/s3test"
)

// A rule that dray wrote for another age is replaced, even if other rules do what the new age
// needs.
func TestLifecycleForAnotherAge(t *testing.T) {
	const day = 24 * time.Hour
	theirs := `<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><Expiration><Days>60</Days></Expiration></Rule></LifecycleConfiguration>`
	for _, age := range []time.Duration{0, 60 * day} {
		store := s3test.New(t)
		apply := func(age time.Duration, mode Mode) Setting {
			t.Helper()
			s := NewSettings(Address{Bucket: "shared", Prefix: "team/", Endpoint: store.URL, PathStyle: true},
				aws.Config{Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}, age)
			defer s.Close()
			all, err := s.Apply(t.Context(), mode)
			if err != nil {
				t.Fatal(err)
			}
			return all[0]
		}
		apply(30*day, Write)
		store.SetSetting("shared", "lifecycle", strings.Replace(store.Setting("shared", "lifecycle"), "</LifecycleConfiguration>", theirs, 1))
		if s := apply(age, Check); !s.Missing || !strings.Contains(store.Setting("shared", "lifecycle"), "<Days>30</Days>") {
			t.Errorf("%v: checked: %+v", age, s)
		}
		apply(age, Write)
		if rules := store.Setting("shared", "lifecycle"); strings.Contains(rules, "<Days>30</Days>") || strings.Count(rules, "<Rule>") != 2 {
			t.Errorf("%v: the rules are\n%s", age, rules)
		}
		if s := apply(age, Check); s.Missing {
			t.Errorf("%v: written: %+v", age, s)
		}
	}
}

// Rules of the old form, without Filter, count. If dray adds its own rule, they get the form that
// S3 accepts beside it.
func TestLifecycleOfTheOldForm(t *testing.T) {
	const day = 24 * time.Hour
	for prefix, missing := range map[string]bool{"team/cache/": false, "": false, "other/": true} {
		store := s3test.New(t)
		s := NewSettings(Address{Bucket: "shared", Prefix: "team/", Endpoint: store.URL, PathStyle: true},
			aws.Config{Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}, 30*day)
		defer s.Close()
		store.SetSetting("shared", "lifecycle", `<LifecycleConfiguration><Rule><ID>old</ID><Prefix>`+prefix+`</Prefix><Status>Enabled</Status><Expiration><Days>30</Days></Expiration>`+
			`<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>`)
		all, err := s.Apply(t.Context(), Write)
		if err != nil || all[0].Missing != missing || all[0].Written != missing {
			t.Fatalf("%q: %+v, %v", prefix, all, err)
		}
		rules := store.Setting("shared", "lifecycle")
		if missing && (strings.Count(rules, "<Prefix>") != 2 || strings.Count(rules, "<Filter><Prefix>") != 2 || !strings.Contains(rules, prefix)) {
			t.Errorf("the rules are\n%s", rules)
		}
	}
}
