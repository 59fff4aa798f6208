import Foundation
import Supervision
import Testing

/// Simulated /proc and /sys of another machine.
private struct FakeMachine: ~Copyable {
    let root: String

    init(_ files: [String: String]) throws {
        root = NSTemporaryDirectory() + "disttrain-machine-\(UUID().uuidString)"
        for (path, text) in files {
            let url = URL(fileURLWithPath: root).appendingPathComponent(path)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: url)
        }
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    /// Four cores of two hardware threads each: 0 and 4, 1 and 5, 2 and 6, 3 and 7.
    static func hyperthreaded(_ more: [String: String] = [:]) -> [String: String] {
        var files = [
            "sys/devices/system/cpu/online": "0-7\n",
            "sys/devices/system/node/has_cpu": "0\n",
            "proc/self/status": "Name:\tdisttrain\nCpus_allowed_list:\t0-7\n",
        ]
        for processor in 0..<8 {
            files["sys/devices/system/cpu/cpu\(processor)/topology/thread_siblings_list"] =
                "\(processor % 4),\(processor % 4 + 4)\n"
        }
        return files.merging(more) { _, new in new }
    }
}

@Suite struct MachineTests {
    @Test func countsCoresNotHardwareThreads() throws {
        let fake = try FakeMachine(FakeMachine.hyperthreaded())
        let machine = Machine(root: fake.root)
        #expect(machine == Machine(cores: [[0, 4], [1, 5], [2, 6], [3, 7]]))
        #expect(machine.usableCores == 4)
    }

    @Test func keepsToTheAffinityMask() throws {
        let fake = try FakeMachine(
            FakeMachine.hyperthreaded(["proc/self/status": "Cpus_allowed_list:\t1,4-5,7\n"]))
        let machine = Machine(root: fake.root)
        #expect(machine.cores == [[1, 5], [4], [7]])
        #expect(!machine.isWhole)
    }

    @Test func keepsToTheLimitOfControlGroupsVersion2() throws {
        // The limit is set in a parent of the process's group.
        let fake = try FakeMachine(
            FakeMachine.hyperthreaded([
                "proc/self/cgroup": "0::/box/inner\n",
                "sys/fs/cgroup/box/cpu.max": "250000 100000\n",
                "sys/fs/cgroup/box/inner/cpu.max": "max 100000\n",
            ]))
        let machine = Machine(root: fake.root)
        #expect(machine.quota == 2.5)
        #expect(machine.usableCores == 2)
    }

    @Test func keepsToTheLimitOfControlGroupsVersion1() throws {
        // The path is that of the host, as in a container: the limit is at the root of the mount.
        let fake = try FakeMachine(
            FakeMachine.hyperthreaded([
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/1234\n3:memory:/docker/1234\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            ]))
        let machine = Machine(root: fake.root)
        #expect(machine.quota == 0.5)
        #expect(machine.usableCores == 1)
    }

    @Test func minusOneIsNoLimit() throws {
        let fake = try FakeMachine(
            FakeMachine.hyperthreaded([
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            ]))
        #expect(Machine(root: fake.root).quota == nil)
    }

    @Test func survivesAnEmptyKernel() throws {
        let fake = try FakeMachine(["proc/self/status": "nonsense\n"])
        #expect(Machine(root: fake.root).usableCores == 1)
    }

    @Test func knowsThisMachine() {
        let machine = Machine()
        #expect(machine.usableCores >= 1)
        #expect(machine.cores.joined().count <= ProcessInfo.processInfo.processorCount)
    }
}

@Suite struct PlacementTests {
    private static func machine(cores: Int, domains: Int = 1, quota: Double? = nil) -> Machine {
        Machine(cores: (0..<cores).map { [$0] }, quota: quota, memoryDomains: domains)
    }

    @Test(
        arguments: [
            // cores, requested ranks, requested threads -> ranks, threads
            (2, nil, nil, 2, 1),
            (2, 2, nil, 2, 1),
            (2, 1, nil, 1, 2),
            (2, 4, nil, 4, 1),
            (16, nil, nil, 4, 4),
            (16, 3, nil, 3, 5),
            (16, nil, 8, 2, 8),
            (16, 2, 3, 2, 3),
            (1, nil, 4, 1, 4),
        ] as [(Int, Int?, Int?, Int, Int)])
    func sharesOutTheCores(cores: Int, askedRanks: Int?, askedThreads: Int?, ranks: Int, threads: Int) {
        let placement = Placement(
            machine: Self.machine(cores: cores), ranks: askedRanks, threads: askedThreads)
        #expect(placement.ranks == ranks)
        #expect(placement.threads == threads)
        #expect(placement.isOversubscribed == (ranks * threads > cores))
    }

    @Test func bindsOnlyWhereItHasTheWholeMachineAndWhereItMatters() {
        #expect(Placement(machine: Self.machine(cores: 8, domains: 2), ranks: 2).binding == .cores)
        #expect(Placement(machine: Self.machine(cores: 8), ranks: 2).binding == .none)
        #expect(Placement(machine: Self.machine(cores: 8, domains: 2), ranks: 2, threads: 2).binding == .none)
        #expect(Placement(machine: Self.machine(cores: 8, domains: 2, quota: 4), ranks: 2).binding == .none)
    }

    @Test func saysItInOneLine() {
        #expect(
            Placement(machine: Self.machine(cores: 2), ranks: 2).summary
                == "1 node × 2 ranks × 1 thread, 2 of 2 cores, not bound")
        #expect(
            Placement(machine: Self.machine(cores: 1), ranks: 2, threads: 2).summary
                == "1 node × 2 ranks × 2 threads on 1 core: oversubscribed, waiting ranks yield")
    }
}

@Suite struct MPIRunTests {
    private func run(
        ranks: Int, isRoot: Bool = false, singleCopy: Bool = true, inherited: [String: String] = [:]
    ) -> MPIRun {
        let machine = Machine(cores: [[0], [1]])
        return MPIRun(
            executable: "/usr/bin/mpirun", placement: Placement(machine: machine, ranks: ranks),
            program: ["/opt/disttrain", "train", "--config", "my run.yaml"], singleCopy: singleCopy,
            isRoot: isRoot, inherited: inherited)
    }

    @Test func oversubscribedRanksYield() {
        #expect(run(ranks: 4).arguments.contains("mpi_yield_when_idle"))
        #expect(run(ranks: 4).environment["OMP_WAIT_POLICY"] == "passive")
        #expect(run(ranks: 4, inherited: ["OMP_WAIT_POLICY": "active"]).environment["OMP_WAIT_POLICY"] == nil)
        #expect(!run(ranks: 2).arguments.contains("mpi_yield_when_idle"))
    }

    @Test func rootAndContainersAreProvidedFor() {
        #expect(run(ranks: 2, isRoot: true).environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1")
        #expect(run(ranks: 2).environment["OMPI_ALLOW_RUN_AS_ROOT"] == nil)
        #expect(run(ranks: 2, singleCopy: false).arguments.contains("btl_vader_single_copy_mechanism"))
        #expect(!run(ranks: 2).arguments.contains("btl_vader_single_copy_mechanism"))
    }

    @Test func commandLineCanBeTyped() {
        let line = run(ranks: 2).commandLine
        #expect(line.hasPrefix("OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 /usr/bin/mpirun -q -n 2 "))
        #expect(line.hasSuffix("/opt/disttrain train --config 'my run.yaml'"))
    }
}

@Suite struct KernelLimitsTests {
    private static let avx512 = "flags\t\t: fpu avx avx2 fma avx512f avx512dq avx512bw avx512vl\n"
    private static let bf16 = "flags\t\t: fpu avx avx2 fma avx512f avx512dq avx512bw avx512vl avx512_bf16\n"
    private static let avx2 = "flags\t\t: fpu avx avx2 fma\n"

    @Test(arguments: [
        ("OPENBLAS_CORETYPE", "Haswell", avx512, true),
        ("OPENBLAS_CORETYPE", "haswell", avx512, true),
        ("OPENBLAS_CORETYPE", "SkylakeX", avx512, false),
        ("OPENBLAS_CORETYPE", "SkylakeX", bf16, false),
        ("OPENBLAS_CORETYPE", "Cooperlake", avx512, false),
        ("OPENBLAS_CORETYPE", "Haswell", avx2, false),
        ("OPENBLAS_CORETYPE", "Nehalem", avx2, true),
        ("OPENBLAS_CORETYPE", "Sandybridge", avx2, true),
        ("OPENBLAS_CORETYPE", "NeoverseN1", avx512, false),
        ("OPENBLAS_CORETYPE", "Haswell", "Features : asimd\n", false),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", avx512, true),
        ("DNNL_MAX_CPU_ISA", "avx512_core", bf16, true),
        ("DNNL_MAX_CPU_ISA", "AVX512_CORE", avx512, false),
        ("ONEDNN_MAX_CPU_ISA", "ALL", bf16, false),
    ])
    func warnsWhereTheProcessorCanDoMore(variable: String, value: String, cpuinfo: String, warns: Bool) throws
    {
        let fake = try FakeMachine(["proc/cpuinfo": "processor\t: 0\n" + cpuinfo])
        let warnings = KernelLimits.warnings(environment: [variable: value], root: fake.root)
        #expect(warnings.count == (warns ? 1 : 0))
        if warns { #expect(warnings[0].contains("\(variable)=\(value)")) }
    }

    @Test func isSilentWithoutTheVariable() throws {
        let fake = try FakeMachine(["proc/cpuinfo": Self.avx512])
        #expect(KernelLimits.warnings(environment: [:], root: fake.root).isEmpty)
    }
}
