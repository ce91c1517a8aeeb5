package interop

import (
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"towpath.invalid/interop/relaytest"
)

// Every flag that derper lists has its line in the answer to a command line of derper.
func TestFlagsOfDerper(t *testing.T) {
	if relaytest.UnderTest() == relaytest.Derper {
		t.Skip("the answer is that of our relay")
	}
	// The help ends with 0 or 2.
	help, _ := exec.Command(relaytest.Foreign(t, relaytest.Derper), "-help").CombinedOutput()
	flags := regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(string(help), -1)
	if len(flags) < 30 {
		t.Fatalf("the help of derper:\n%s", help)
	}
	var words []string
	for _, flag := range flags {
		words = append(words, "-"+flag[1]+"=x")
	}
	answer, err := exec.Command(relaytest.Binary(t), words...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("ended with %v, want 2", err)
	}
	for _, flag := range flags {
		if line := "\n  -" + flag[1] + ": "; !strings.Contains(string(answer), line) {
			t.Errorf("no line for -%s in\n%s", flag[1], answer)
		}
	}
}
