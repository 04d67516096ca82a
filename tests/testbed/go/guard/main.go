// guard runs a program that must not outlive the test that started it: it asks
// the kernel to kill this process when the thread that started it ends, for
// whatever reason, and then becomes the program. The process id stays the same.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: guard PARENT-PID PROGRAM [ARGUMENTS]")
		os.Exit(2)
	}
	// The death signal belongs to the thread that asks for it; the thread that
	// calls exec hands it on.
	runtime.LockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); errno != 0 {
		fail(fmt.Errorf("ask for a death signal: %w", errno))
	}
	parent, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fail(err)
	}
	// The parent may have ended before the kernel was asked.
	if os.Getppid() != parent {
		fail(fmt.Errorf("process %d has ended", parent))
	}
	program, err := exec.LookPath(os.Args[2])
	if err != nil {
		fail(err)
	}
	fail(syscall.Exec(program, os.Args[2:], os.Environ()))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "guard:", err)
	os.Exit(127)
}
