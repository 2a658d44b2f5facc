"""Feature checks of clocks, timers and signals."""

import _thread
import errno
import os
import select
import signal
import struct
import sys
import time

from feature_check import PATIENCE, TICK, buffer, call, check, ctypes, error_name, error_of, fork, require, wait


def seconds_of(*values):
    """Pack seconds as a struct of C's timespecs."""
    return b"".join(struct.pack("qq", int(value), round(value % 1 * 1e9)) for value in values)


def timerfd():
    """Timer descriptors work: they count, report the remaining time, and accept absolute times.

    Needed by: test_os.TimerfdTests.
    """

    def set_timer(value, interval=0.0, flags=0):
        old = ctypes.create_string_buffer(32)
        call("timerfd_settime", timer, flags, ctypes.create_string_buffer(seconds_of(interval, value)), old)
        return times(old)

    def times(packed):
        interval, interval_ns, value, value_ns = struct.unpack("4q", packed.raw[:32])
        return interval + interval_ns / 1e9, value + value_ns / 1e9

    def expired():
        require(select.select([timer], [], [], PATIENCE / 4)[0], f"a timer of {name} does not expire")
        return int.from_bytes(os.read(timer, 8), sys.byteorder)

    for clock, name in ((time.CLOCK_REALTIME, "CLOCK_REALTIME"), (time.CLOCK_MONOTONIC, "CLOCK_MONOTONIC")):
        timer = call("timerfd_create", clock, os.O_NONBLOCK | os.O_CLOEXEC)
        set_timer(60, 0.5)
        number = error_of(lambda timer=timer: os.read(timer, 8))
        require(number == errno.EAGAIN, f"a timer of {name} that runs gives {error_name(number)}")
        now = ctypes.create_string_buffer(32)
        call("timerfd_gettime", timer, now)
        for what, (interval, left) in (("timerfd_gettime", times(now)), ("timerfd_settime", set_timer(TICK))):
            require(interval == 0.5 and 50 < left <= 60, f"{what} tells of {interval} s and {left} s, not 0.5 and 60")
        require(expired() == 1, f"a timer of {name} that runs once expires more often")
        set_timer(TICK, TICK)
        time.sleep(4 * TICK)
        count = expired()
        require(count >= 3, f"a timer of {name} expires {count} times in the time for four")
        started = time.clock_gettime(clock)
        set_timer(started + TICK, flags=1)
        require(expired() == 1, f"a timer of {name} to an absolute time expires more than once")
        took = time.clock_gettime(clock) - started
        require(took >= TICK, f"a timer of {name} to an absolute time expires after {took:.3f} s of {TICK} s")
        os.close(timer)
    return "timers of CLOCK_REALTIME and CLOCK_MONOTONIC count, tell what is left, and take absolute times"


def clocks():
    """The clocks of wall time, the process and the thread are finer than 10 ms and advance; sleep sleeps.

    Needed by: test_time, test_threading, test_asyncio and all that measures time.
    """
    names = ("REALTIME", "MONOTONIC", "BOOTTIME", "PROCESS_CPUTIME_ID", "THREAD_CPUTIME_ID")
    before = {}
    for name in names:
        clock = getattr(time, f"CLOCK_{name}")
        before[name] = time.clock_gettime(clock)
        require(time.clock_getres(clock) <= 0.01, f"CLOCK_{name} has steps of {time.clock_getres(clock)} s")
    started = time.monotonic()
    time.sleep(TICK)
    took = time.monotonic() - started
    require(took >= TICK, f"a sleep of {TICK} s takes {took:.4f} s")
    while time.monotonic() < started + 2 * TICK:
        pass
    for name in names:
        passed = time.clock_gettime(getattr(time, f"CLOCK_{name}")) - before[name]
        least = 0.001 if name.endswith("CPUTIME_ID") else 2 * TICK
        require(passed >= least or name == "REALTIME", f"CLOCK_{name} goes on by {passed:.4f} s in {2 * TICK} s")
    return "all go on, in steps of less than 10 ms"


def thread_cpu_clock():
    """A thread's CPU time can be read from a different thread.

    Needed by: test_time.TimeTestCase.test_pthread_getcpuclockid.
    """
    clock = ctypes.c_int()
    check("pthread_getcpuclockid", ctypes.c_ulong(_thread.get_ident()), ctypes.byref(clock))
    seconds = time.clock_gettime(clock.value)
    require(seconds > 0, f"it is {seconds} s")
    return "it can be asked for"


def interval_timers():
    """Timers of wall time, user time and CPU time send their signals repeatedly.

    Needed by: test_signal.ItimerTest, test_eintr, tests that end a hang by an alarm.
    """
    timers = (
        ("ITIMER_REAL", signal.ITIMER_REAL, signal.SIGALRM),
        ("ITIMER_VIRTUAL", signal.ITIMER_VIRTUAL, signal.SIGVTALRM),
        ("ITIMER_PROF", signal.ITIMER_PROF, signal.SIGPROF),
    )
    for name, timer, number in timers:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        signal.setitimer(timer, TICK, TICK)
        for _ in range(3):
            deadline = time.monotonic() + PATIENCE / 4
            while number not in signal.sigpending():
                require(time.monotonic() < deadline, f"{name} sends no {number.name}, or not again")
            signal.sigwait({number})
        signal.setitimer(timer, 0)
    return "ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF send their signals"


def signal_waiting():
    """A blocked signal can be waited for, with a time-out, and has its sender.

    Needed by: test_signal.PendingSignalsTests (sigwait, sigwaitinfo, sigtimedwait).
    """
    blocked = {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    os.kill(os.getpid(), signal.SIGUSR1)
    require(signal.sigwait(blocked) == signal.SIGUSR1, "sigwait gives another signal than was sent")
    started = time.monotonic()
    require(signal.sigtimedwait(blocked, TICK) is None, "sigtimedwait gives a signal where none was sent")
    took = time.monotonic() - started
    require(took >= TICK * 0.9, f"sigtimedwait waits for {took:.4f} s, not {TICK} s")
    pid = fork(lambda: os.kill(os.getppid(), signal.SIGUSR2))
    found = signal.sigwaitinfo(blocked)
    wait(pid)
    told = (found.si_signo, found.si_code, found.si_pid, found.si_uid)
    expected = (signal.SIGUSR2, 0, pid, os.getuid())
    require(told == expected, f"sigwaitinfo tells (number, code, sender, user) {told}, not {tuple(map(int, expected))}")
    return "sigwait, sigtimedwait and sigwaitinfo do what they should"


def thread_signals():
    """A signal can be sent to one thread, and only that thread gets it.

    Needed by: test_signal.PendingSignalsTests.test_pthread_kill, test_threadsignals.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ready, done, got = _thread.allocate_lock(), _thread.allocate_lock(), []
    ready.acquire()
    done.acquire()

    def body():
        ready.release()
        got.append(signal.sigtimedwait({signal.SIGUSR1}, PATIENCE / 2))
        done.release()

    thread = _thread.start_new_thread(body, ())
    ready.acquire()
    signal.pthread_kill(thread, signal.SIGUSR1)
    require(signal.sigtimedwait({signal.SIGUSR1}, TICK) is None, "a signal to another thread comes to this one")
    done.acquire()
    require(got[0] is not None, "the thread that a signal was sent to does not get it")
    return "the thread that it is sent to gets it, and no other"


def interrupted_calls():
    """A signal interrupts a blocking system call, which continues with SA_RESTART.

    Needed by: test_eintr, test_signal.SiginterruptTest, test_threadsignals.
    """
    reader, writer = os.pipe()
    signal.signal(signal.SIGALRM, lambda *_: None)
    _, address = keep = buffer(1)

    def read():
        return call("read", reader, address, ctypes.c_size_t(1), result="c_ssize_t")

    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    number = error_of(read)
    signal.setitimer(signal.ITIMER_REAL, 0)
    require(number == errno.EINTR, f"a read that a signal interrupts gives {error_name(number)}")
    signal.siginterrupt(signal.SIGALRM, False)

    def body():
        time.sleep(5 * TICK)
        os.write(writer, b"x")

    pid = fork(body)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    number = error_of(read)
    signal.setitimer(signal.ITIMER_REAL, 0)
    wait(pid)
    del keep
    require(number == 0, f"a read that is to go on after a signal gives {error_name(number)}")
    return "a read gives EINTR, and with SA_RESTART goes on"


def real_time_signals():
    """All real-time signals can be sent and waited for; an emulator may reserve some.

    Needed by: test_signal (test_valid_signals and its like), test_asyncio.test_unix_events.
    """
    lost = []
    numbers = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        if error_of(lambda number=number: os.kill(os.getpid(), number)) or not signal.sigtimedwait({number}, 0.2):
            lost.append(number)
            require(len(lost) < 5, f"they do not arrive: {lost} and perhaps others of {numbers[0]} to {numbers[-1]}")
    require(not lost, f"these do not arrive: {lost} of {numbers[0]} to {numbers[-1]}")
    return f"all of {numbers[0]} to {numbers[-1]} arrive"


FEATURE_CHECKS = (
    timerfd,
    clocks,
    thread_cpu_clock,
    interval_timers,
    signal_waiting,
    thread_signals,
    interrupted_calls,
    real_time_signals,
)
