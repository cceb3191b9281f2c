import java.sql.*;

// Logins by the JDBC driver over TLS whose certificate is verified, with two queries
// each, a line for each password. Arguments: port, user, file of the CA, passwords.
public class Login {
    public static void main(String[] args) {
        String url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/postgres?sslmode=verify-full&sslrootcert=" + args[2];
        for (int i = 3; i < args.length; i++) {
            try (Connection c = DriverManager.getConnection(url, args[1], args[i])) {
                System.out.println(ask(c));
            } catch (SQLException e) {
                System.out.println("SQLSTATE " + e.getSQLState() + " " + e.getMessage().replace('\n', ' '));
            }
        }
    }

    static String ask(Connection c) throws SQLException {
        String answer;
        try (Statement who = c.createStatement(); ResultSet r = who.executeQuery("select current_user")) {
            r.next();
            answer = r.getString(1) + " ";
        }
        try (PreparedStatement sum = c.prepareStatement("select ? + ?")) {
            int n = 0;
            for (int i = 0; i < 10; i++) { // from the fifth time on the statement has a name
                sum.setInt(1, 40);
                sum.setInt(2, 2);
                try (ResultSet r = sum.executeQuery()) {
                    r.next();
                    n = r.getInt(1);
                }
            }
            return answer + n;
        }
    }
}
