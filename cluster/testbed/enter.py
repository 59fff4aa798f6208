"""Runs a command inside a host, and stands for it outside: same output, same exit status, signals passed on.

    enter.py KEEPER FOLDER COMMAND…

Why not nsenter: it does not pass signals on, and when it is killed the command lives on.
"""

import ctypes
import os
import resource
import signal
import sys

PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
PR_SET_PDEATHSIG = 1


def enter(keeper):
    libc = ctypes.CDLL(None, use_errno=True)
    # Open all namespaces before entering the first one: /proc changes with the mount namespace.
    spaces = [os.open(f"/proc/{keeper}/ns/{kind}", os.O_RDONLY) for kind in ("net", "uts", "ipc", "pid", "mnt")]
    for space in spaces:
        if libc.setns(space, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.close(space)
    return libc


def main():
    keeper, folder, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    try:
        libc = enter(keeper)
    except OSError as error:
        sys.exit(f"testbed: cannot enter the host: its first process, {keeper}, is not there ({error.strerror})")
    try:
        os.chdir(folder)
    except OSError as error:
        sys.exit(f"testbed: folder {folder} cannot be seen inside the host ({error.strerror}): "
                 "hosts have a /tmp of their own; share the folder, or work below another one")
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    child = os.fork()  # setns moves only children into a PID namespace
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON | {signal.SIGCHLD})
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"testbed: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127)
    while True:
        event = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD})
        if event.si_signo != signal.SIGCHLD:
            # The command has also received a signal from the terminal (code above 0); a second one would mean "end at
            # once".
            if event.si_code <= 0:
                os.kill(child, event.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
    if os.WIFSIGNALED(status):
        # End with the same signal, so that the caller sees -N as for the command itself, but without a second core
        # dump.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
