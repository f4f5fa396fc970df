/*
 * A minimal backup agent for this lab: a CORBA client with one session to a naming service.
 *
 *   beremote CORBALOC [ORB OPTION…]
 *
 * Standard output, a line each:
 *   ready                the session is established: a call was answered
 *   failed REASON
 *
 * Standard input, a command a line, and its answer:
 *   call MILLISECONDS    "answered", or "lost: REASON" if no answer came in time
 */
#include <omniORB4/CORBA.h>
#include <omniORB4/Naming.hh>

#include <cstdlib>
#include <iostream>
#include <string>

static void call(CosNaming::NamingContext_ptr service)
{
    CosNaming::BindingList_var bindings;
    CosNaming::BindingIterator_var rest;

    service->list(1, bindings, rest);
    if (!CORBA::is_nil(rest))
        rest->destroy();
}

static std::string reason(const CORBA::SystemException &exception)
{
    const char *minor = exception.NP_minorString();

    return std::string(exception._name()) + (minor ? std::string(" ") + minor : "");
}

static void serve_commands(CosNaming::NamingContext_ptr service)
{
    for (std::string word, milliseconds; std::cin >> word >> milliseconds && word == "call";) {
        omniORB::setClientCallTimeout(std::strtoul(milliseconds.c_str(), nullptr, 10));
        try {
            call(service);
            std::cout << "answered" << std::endl;
        } catch (const CORBA::SystemException &exception) {
            std::cout << "lost: " << reason(exception) << std::endl;
        }
    }
}

int main(int argc, char **argv)
{
    try {
        CORBA::ORB_var orb = CORBA::ORB_init(argc, argv);
        if (argc != 2) {
            std::cerr << "usage: beremote CORBALOC [ORB OPTION]...\n";
            return 64;
        }
        omniORB::setClientCallTimeout(10000);
        CORBA::Object_var object = orb->string_to_object(argv[1]);
        CosNaming::NamingContext_var service = CosNaming::NamingContext::_narrow(object);
        call(service);
        std::cout << "ready" << std::endl;
        serve_commands(service);
        return 0;
    } catch (const CORBA::SystemException &exception) {
        std::cout << "failed " << reason(exception) << std::endl;
        return 1;
    }
}
