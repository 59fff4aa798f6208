import Foundation
import Records
import Testing
import TestSupport

@Suite struct RecordedEnvironmentTests {
    /// Environment variables that contain, or may contain, confidential values.
    private static let secrets = [
        "SLURM_JWT", "SLURM_JOB_USER", "SLURM_JOB_ACCOUNT", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST",
        "SLURM_CONF",
        "SLURM_JOB_NODELIST", "SLURM_TOPOLOGY_ADDR", "SLURM_LAUNCH_NODE_IPADDR", "SLURM_JOB_COMMENT",
        "SLURM_STEP_RESV_PORTS", "SLURM_SPANK_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY",
    ]

    @Test("no record contains a variable that is not listed")
    func secretsStayOut() throws {
        let secret = "secret-\(UUID().uuidString)"
        for name in Self.secrets { setenv(name, secret, 1) }
        setenv("SLURM_JOB_PARTITION", "long-partition", 1)
        defer { for name in Self.secrets + ["SLURM_JOB_PARTITION"] { unsetenv(name) } }

        let scratch = try ScratchFolder()
        let run = try WandBRun(
            in: scratch.path, resumedStep: nil,
            WandBRun.Description(
                name: "tiny", configuration: ["seed": 0], programVersion: "0.1.0", host: "node1"),
            onProblem: { _ in })
        run.append([("train/loss", 1)], step: 1)
        run.synchronize()
        run.finish(exitStatus: 0)

        var partitions = 0
        let files = try #require(FileManager.default.enumerator(atPath: scratch.path)).compactMap {
            $0 as? String
        }
        for file in files {
            guard let data = FileManager.default.contents(atPath: "\(scratch.path)/\(file)") else { continue }
            #expect(data.range(of: Data(secret.utf8)) == nil, "\(file)")
            if data.range(of: Data("long-partition".utf8)) != nil { partitions += 1 }
        }
        // The value appears in the log and in wandb-metadata.json.
        #expect(partitions == 2)
    }
}
