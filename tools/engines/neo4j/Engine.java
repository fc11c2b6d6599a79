import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import org.neo4j.cli.AdminTool;
import org.neo4j.cli.ExecutionContext;
import org.neo4j.dbms.api.DatabaseManagementService;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;

/** Runs Neo4j Community in the foreground: `Engine HOME`. The first start sets the password of INITIAL_PASSWORD. */
final class Engine {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]), conf = home.resolve("conf"), ready = Path.of(args[1]);
        String password = System.getenv("INITIAL_PASSWORD");
        if (password != null) {
            // What the tool prints tells nothing that is needed, and a failure is in its status.
            PrintStream silent = new PrintStream(PrintStream.nullOutputStream());
            int status = AdminTool.execute(
                    new ExecutionContext(home, conf, silent, System.err, new org.neo4j.io.fs.DefaultFileSystemAbstraction()),
                    "dbms", "set-initial-password", password);
            if (status != 0) System.exit(status);
        }
        DatabaseManagementService service =
                new DatabaseManagementServiceBuilder(home).loadPropertiesFromFile(conf.resolve("neo4j.conf")).build();
        // The builder has a hook of its own for the end of the process; a second shutdown finds nothing left to do.
        Runtime.getRuntime().addShutdownHook(new Thread(service::shutdown));
        Files.createFile(ready);
        Thread.currentThread().join();
    }
}
